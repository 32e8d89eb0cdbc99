"""The hooks that end a run before it goes wrong, or when it is asked to stop."""

import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from tiny_run import At, run, saved, tiny_config

from mmseg_gpt.engine import NonFiniteHook, RunStopped, StopOnSignalHook
from mmseg_gpt.engine.hooks.non_finite import fetch_numbers
from mmseg_gpt.engine.resume import newest_checkpoint
from mmseg_gpt.engine.runner import STANDARD_HOOKS

# --- non-finite ------------------------------------------------------------------------------------


def spoil_image(runner, batch: dict) -> None:
    batch['inputs'] = [image.float() for image in batch['inputs']]
    batch['inputs'][1][0, 0, 0] = torch.nan


def spoil_gradient(runner, batch: dict) -> None:
    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        gradient[0] = torch.inf
        return gradient

    runner.model.decode_head.conv_seg.bias.register_hook(spoil)


@pytest.mark.parametrize('spoil, named', [
    (spoil_image, 'backbone.prompt.tokens'),
    (spoil_gradient, r'1 of \d+ trained tensors \(decode_head.conv_seg.bias\)'),
])
def test_the_first_gradient_that_is_not_finite_ends_the_run(tmp_path, spoil, named):
    weights = {}

    def remember(runner, batch: dict) -> None:
        weights['before'] = {k: v.clone() for k, v in runner.model.named_parameters()}
        weights['files'] = [sample.img_path for sample in batch['data_samples']]
        weights['runner'] = runner

    with pytest.raises(RunStopped, match=f'(?s)stopped at iteration 4: the gradient is not finite.*{named}') as stopped:
        run(tiny_config(tmp_path), At(4, remember), At(4, spoil))
    assert all(file in str(stopped.value) for file in weights['files']) and 'iter_2.pth' in str(stopped.value)
    for name, parameter in weights['runner'].model.named_parameters():
        assert torch.equal(parameter, weights['before'][name]), 'a step was made'
    assert newest_checkpoint(tmp_path / 'run').name == 'iter_2.pth'


def test_a_loss_that_is_not_finite_but_has_no_gradient_ends_the_run(tmp_path):
    def spoil(runner, batch: dict) -> None:
        original = runner.model.decode_head.loss
        runner.model.decode_head.loss = lambda *a: {**original(*a), 'loss_extra': torch.tensor(torch.nan)}

    with pytest.raises(RunStopped, match=r'stopped at iteration 3: not finite: .*loss_extra') as stopped:
        run(tiny_config(tmp_path), At(3, spoil))
    assert stopped.value.code == 'not-finite'


def test_large_gradients_are_not_infinite(tmp_path):
    """Their squares overflow float32, and with them the norm."""

    def enlarge(runner, batch: dict) -> None:
        runner.model.decode_head.conv_seg.bias.register_hook(lambda gradient: torch.full_like(gradient, 1e30))

    run(tiny_config(tmp_path, train_cfg__max_iters=1), At(1, enlarge))
    assert saved(tmp_path, 1)['state_dict']['decode_head.conv_seg.bias'].abs().max() > 1e25


def test_a_batch_without_a_label_ends_the_run(tmp_path):
    def ignore(runner, batch: dict) -> None:
        for sample in batch['data_samples']:
            sample.gt_sem_seg.data.fill_(255)

    def label_one_pixel(runner, batch: dict) -> None:
        ignore(runner, batch)
        batch['data_samples'][1].gt_sem_seg.data[0, 0, 0] = 3

    with pytest.raises(RunStopped, match=r'iteration 3: every pixel .*Images: \S+\.jpg, \S+\.jpg') as stopped:
        run(tiny_config(tmp_path), At(2, label_one_pixel), At(3, ignore))
    assert stopped.value.code == 'nothing-labelled'


def test_a_batch_without_a_label_may_be_allowed(tmp_path, capsys):
    def ignore(runner, batch: dict) -> None:
        for sample in batch['data_samples']:
            sample.gt_sem_seg.data.fill_(255)

    run(tiny_config(tmp_path, custom_hooks=[dict(type='IgnoredBatchHook', stop=False)]), At(3, ignore))
    assert 'iteration 3: every pixel of this batch is ignored' in capsys.readouterr().out


def test_losses_become_numbers_at_once():
    outputs = dict(loss=torch.tensor(0.1, requires_grad=True), acc=torch.tensor([2.], dtype=torch.bfloat16), lr=3)
    single = torch.tensor(0.1).item()
    assert fetch_numbers(outputs) == dict(loss=single, acc=2.) and outputs == dict(loss=single, acc=2., lr=3)
    assert fetch_numbers({}) == {}
    mixed = dict(loss=torch.tensor(0.5, dtype=torch.half), pixels=torch.tensor(70_001), maps=torch.zeros(2))
    assert fetch_numbers(mixed) == dict(loss=0.5, pixels=70_001)


def scaled_hook(max_skipped_steps: int, accumulated: int) -> tuple[NonFiniteHook, SimpleNamespace, torch.optim.SGD]:
    """The hook on an optimizer whose steps loss scaling skips."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    model = torch.nn.ParameterList([parameter])
    wrapper = SimpleNamespace(optimizer=optimizer, _accumulative_counts=accumulated)
    runner = SimpleNamespace(optim_wrapper=wrapper, model=model, iter=0,
                             message_hub=SimpleNamespace(runtime_info={}))
    hook = NonFiniteHook(max_skipped_steps)
    hook.before_train(runner)
    hook.scaled = True  # MMEngine's own wrapper cannot be made without a GPU
    return hook, runner, optimizer


def test_loss_scaling_may_skip_a_number_of_steps_in_a_row():
    hook, runner, optimizer = scaled_hook(max_skipped_steps=3, accumulated=2)
    infinite = dict(loss=torch.tensor(torch.inf))

    def iterate(times: int) -> None:
        for _ in range(times):
            hook.before_train_iter(runner, 0, {})
            hook.after_train_iter(runner, 0, {}, infinite)

    iterate(6)
    optimizer.param_groups[0]['params'][0].grad = torch.ones(2)
    optimizer.step()  # a step that is made starts the count anew
    iterate(7)
    with pytest.raises(RunStopped, match='more than 3 steps in a row') as stopped:
        iterate(1)
    assert stopped.value.code == 'loss-scaling'


def test_a_fused_optimizer_skips_infinite_gradients_by_itself():
    hook, runner, optimizer = scaled_hook(max_skipped_steps=3, accumulated=1)
    optimizer.param_groups[0]['params'][0].grad = torch.full((2, ), torch.inf)
    optimizer.found_inf = torch.tensor(1.)  # torch's GradScaler tells it so
    hook.check_gradients(runner, optimizer)
    assert hook.skipped == 0, 'counted as a step that was made'
    optimizer.found_inf = torch.tensor(0.)
    with pytest.raises(RunStopped):
        hook.check_gradients(runner, optimizer)


# --- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(tmp_path, number):
    former = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        run(tiny_config(tmp_path), At(3, lambda runner, batch: os.kill(os.getpid(), number)))
    assert stopped.value.code == 128 + number
    checkpoint = saved(tmp_path, 3)
    assert checkpoint['meta']['iter'] == 3 and 'optimizer' in checkpoint
    assert newest_checkpoint(tmp_path / 'run').name == 'iter_3.pth'
    assert signal.getsignal(number) is former


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    def twice(runner, batch: dict) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(tmp_path), At(3, twice))
    assert newest_checkpoint(tmp_path / 'run').name == 'iter_2.pth'


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(tiny_config(tmp_path, train_cfg__max_iters=2), At(1, lambda *_: os.kill(os.getpid(), signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, former)
    assert saved(tmp_path, 2)


def test_the_handlers_are_restored_after_an_error(tmp_path):
    former = signal.getsignal(signal.SIGTERM)

    def fail(runner, batch: dict) -> None:
        assert signal.getsignal(signal.SIGTERM) is not former
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tiny_config(tmp_path), At(2, fail))
    assert signal.getsignal(signal.SIGTERM) is former


class SignalInValidation(Hook):
    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_validation(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        run(tiny_config(tmp_path, train_cfg__val_interval=3), SignalInValidation())
    assert stopped.value.code == 128 + signal.SIGTERM and saved(tmp_path, 3)['meta']['iter'] == 3
    shutil.rmtree(tmp_path / 'run')


def test_guards_are_always_there_and_take_options(tmp_path):
    cfg = tiny_config(tmp_path, train_cfg__max_iters=1, custom_hooks=[dict(type='NonFiniteHook', max_skipped_steps=7)])
    hooks = run(cfg).hooks
    assert [h.max_skipped_steps for h in hooks if isinstance(h, NonFiniteHook)] == [7]
    assert sum(isinstance(h, StopOnSignalHook) for h in hooks) == 1
    cfg = tiny_config(tmp_path, train_cfg__max_iters=1)
    cfg.pop('custom_hooks')
    assert {type(h).__name__ for h in run(cfg).hooks} >= set(STANDARD_HOOKS)

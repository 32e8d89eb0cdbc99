"""What a GPU is asked for: the operations of a training step and of an evaluated image, and how often it is waited for.

They are counted without a GPU, on the device ``meta``, whose tensors have no values: reading one would raise an error.
docs/performance.md has the launches that were counted with CUDA.
"""

import copy
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from tiny_run import At, run, tiny_config
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_gpt.checkpoints.periods import rotary_periods
from mmseg_gpt.engine.batch import gathered
from mmseg_gpt.engine.confusion import ConfusionMetric
from mmseg_gpt.engine.sweep import swept
from mmseg_gpt.engine.to_host import to_host
from mmseg_gpt.lab.benchmark import work
from mmseg_gpt.lab.benchmark.variants import Sizes, build, read_config
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.interpolation import Bicubic, grad_by_products
from mmseg_gpt.models.rotary import rotation_of
from mmseg_gpt.segmentation import LeanSegDataPreProcessor, PerClassIoUMetric, bands, cross_entropy

CONFIG = 'configs/setr_pup_gpt_mae_ade20k.py'
FREE = ('empty', 'promote_types', 'new_empty')  # need no kernel; nor do views


class Operations(TorchDispatchMode):
    """Counts operations that compute something, those that read a number from a device, and copies from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter = Counter()
        self.reads = self.sent = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.reads += name == '_local_scalar_dense'
        if not function.is_view and not name.startswith(FREE):
            self.counts[name] += 1
        found = function(*args, **(kwargs or {}))
        self.sent += name in ('_to_copy', 'copy_') and found.is_meta and any(
            isinstance(value, torch.Tensor) and not value.is_meta for value in args)
        return found


@pytest.fixture(scope='module')
def model():
    """The paper's model at its full size, without values."""
    return build('ours', read_config(CONFIG), Sizes()).to('meta')


@pytest.fixture
def fused(monkeypatch) -> None:
    """Attention as one operation, as on a GPU; on ``meta`` torch would write it out."""
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, k, v: kernel(q, k, v, None, True)[0])


@pytest.mark.parametrize('batch, most', [(2, 1000), (16, 1500)])
def test_a_training_step_asks_a_gpu_for_few_operations(model, fused, batch, most):
    """CUDA needs about as many launches. Before there were 1,321 and 2,917 of them."""
    step = work.TrainingStep(model, read_config(CONFIG), work.make_batch(Sizes(batch=batch), 0, 'meta'))
    step.optimizer = SimpleNamespace(zero_grad=model.zero_grad, step=lambda: None)  # on a GPU 3 launches for all
    with Operations() as seen:
        step()
    assert seen.reads == seen.sent == 0 and 500 < seen.counts.total() <= most, seen.counts.most_common(12)


@pytest.mark.parametrize('original', [(512, 683), (1200, 1600)])
def test_an_evaluated_image_asks_for_few_operations_and_waits_for_nothing(model, fused, original):
    """Before, each band of rows of another size than the image's waited for three copies."""
    image, sample = torch.zeros(1, 3, 512, 683, device='meta'), work.make_sample((512, 683), ori_shape=original)
    with Operations() as seen, torch.no_grad():
        model.eval().predict(image, [sample])
    copies = [name for name in seen.counts if name == '_to_copy']
    assert seen.reads == seen.sent == 0 and seen.counts.total() < 400 and len(copies) <= 1
    assert sample.pred_sem_seg.data.shape == (1, *original) and sample.pred_sem_seg.data.is_meta


def test_rotary_periods_are_sent_once():
    """A copy from the host waits for a GPU; before, each forward made one."""
    options = dict(arch=dict(embed_dims=48, num_layers=1, num_heads=2), rotary='float32', temperature=True)
    vit, images = GatedPromptViT(**options), torch.zeros(1, 3, 32, 48)
    far = copy.deepcopy(vit).to('meta')
    for i in range(2):
        with Operations() as seen:
            far(images.to('meta'))
        assert i == 0 or seen.sent == 1  # the images
    with torch.inference_mode():
        before = vit(images)
    assert torch.equal(vit(images)[0], before[0]) and not vit.rotation((2, 3)).cos.is_inference()
    assert torch.equal(vit.double().rotation((2, 3)).cos, rotation_of(
        (2, 3), rotary_periods(24, 'float32').double(), 1).cos)


def test_rotary_periods_without_values_are_not_kept():
    arch = dict(embed_dims=40, num_layers=1, num_heads=2)  # heads as wide as those of no other test
    vit = GatedPromptViT(arch=arch, rotary='float32')
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(vit.rotation((2, 3)).cos, FakeTensor)
    assert type(vit.rotation((2, 3)).cos) is torch.Tensor


# --- sizes of what is computed at a time -----------------------------------------------------------


def test_a_gpu_gets_more_at_a_time_than_a_cpu():
    sizes = dict(cpu=1, cuda=2)
    assert [bands.size_on(torch.device(kind), sizes) for kind in ('cpu', 'cuda', 'mps', 'meta')] == [1, 2, 2, 2]


@pytest.mark.parametrize('size', [2**30, 5 * 150 * 12 * 16 * 4, 12 * 16 * 150 * 4, 1])
def test_the_loss_is_the_same_in_bands_of_any_size(monkeypatch, size):
    """Of some images, of one, or of one row of it."""
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', size)
    logits = torch.randn(7, 150, 6, 8, dtype=torch.double).to(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 150, (7, 12, 16))
    labels[:, :2] = 255
    loss, correct = cross_entropy.upsampled_cross_entropy(logits, labels, 2, 255)
    gradient, = torch.autograd.grad(loss, logits)
    upsampled = F.interpolate(logits, scale_factor=2, mode='bilinear')
    plain = F.cross_entropy(upsampled, labels, ignore_index=255, reduction='sum')
    assert torch.allclose(loss, plain, rtol=1e-13)
    assert torch.allclose(gradient, torch.autograd.grad(plain, logits)[0], atol=1e-13)
    assert correct == ((upsampled.argmax(1) == labels) & (labels != 255)).sum()


def test_slopes_are_seen_as_channels_last(monkeypatch):
    """Else CUDA takes an atomic kernel for planes, and copies all of them to have planes."""
    seen = []
    original = torch.ops.aten.upsample_bilinear2d_backward
    monkeypatch.setattr(torch.ops.aten, 'upsample_bilinear2d_backward',
                        lambda slope, *rest: seen.append(slope.stride()) or original(slope, *rest))
    logits = torch.randn(1, 5, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    cross_entropy.upsampled_cross_entropy(logits, torch.zeros(1, 8, 8, dtype=torch.long), 2, 255)
    assert seen == [(8 * 8 * 5, 1, 8 * 5, 5)]


# --- torch's deterministic mode --------------------------------------------------------------------


def test_slopes_by_products_are_those_of_torch():
    """CUDA refuses its own kernel in the deterministic mode."""
    slope = torch.randn(3, 12, 20, 7, dtype=torch.double).permute(0, 3, 1, 2)
    for small in ((6, 10), (4, 5), (12, 20)):
        shape = (3, 7, *small)
        theirs = torch.ops.aten.upsample_bilinear2d_backward(slope, [12, 20], shape, False)
        assert torch.allclose(grad_by_products(slope, (12, 20), shape, False), theirs, atol=1e-13)


def test_slopes_by_products_are_as_exact_under_autocast_and_where_tf32_is_allowed(tf32):
    torch.backends.cuda.matmul.allow_tf32 = True
    allowed = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if 'mm' in function.__name__:
                allowed.append(torch.backends.cuda.matmul.allow_tf32)
            return function(*arguments, **(options or {}))

    slope = torch.randn(2, 12, 20, 7).permute(0, 3, 1, 2)
    theirs = torch.ops.aten.upsample_bilinear2d_backward(slope, [12, 20], (2, 7, 6, 10), False)
    with torch.autocast('cpu', torch.bfloat16), Products():
        mine = grad_by_products(slope, (12, 20), (2, 7, 6, 10), False)
    assert mine.dtype == torch.float32 and torch.allclose(mine, theirs, rtol=0, atol=1e-5)
    assert allowed and not any(allowed) and torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize('size', [(9, 4), (3, 11), (6, 5), (2, 2)])
def test_bicubic_slopes_by_products_are_those_of_torch(size):
    """Those of a trained position embedding for images of another size."""
    x = torch.randn(1, 7, 6, 5, dtype=torch.double, requires_grad=True)
    mine, theirs = Bicubic.apply(x, size), F.interpolate(x, size, mode='bicubic')
    slope = torch.randn_like(theirs)
    assert torch.equal(mine, theirs)
    assert torch.allclose(*(torch.autograd.grad(out, x, slope)[0] for out in (mine, theirs)), rtol=0, atol=1e-12)


def test_a_resized_position_embedding_trains_in_the_deterministic_mode(monkeypatch):
    """CUDA refuses the backward that torch would call."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # there is none for ``meta``
    vit = GatedPromptViT(arch=dict(embed_dims=8, num_layers=1, num_heads=2), img_size=32, frozen=False).to('meta')
    torch.use_deterministic_algorithms(True)
    try:
        with Operations() as seen:
            vit(torch.zeros(1, 3, 48, 32, device='meta'))[0].sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert vit.pos_embed.grad.is_meta and 'upsample_bicubic2d_backward' not in seen.counts


@pytest.mark.parametrize('classes', [150, 2])
def test_pixels_are_counted_as_by_mmsegmentation(classes):
    predicted, true = torch.randint(0, classes, (2, 40, 50))
    true[:5], true[5, 5] = 255, classes + 3  # ignored, and of no class
    counted = IoUMetric.intersect_and_union(predicted, true, classes, 255)
    kept = true != 255
    for mine, values in zip(counted, (predicted[kept][predicted[kept] == true[kept]], None, predicted[kept],
                                      true[kept])):
        if values is not None:
            assert torch.equal(mine, torch.histc(values.double(), classes, 0, classes - 1).long())
    both, either, of_predicted, of_true = counted
    assert torch.equal(either, of_predicted + of_true - both)
    # The pixels of many images add up exactly, which float32 does not do from here on.
    assert all(torch.equal(areas + 2**24 - areas, torch.full_like(areas, 2**24)) for areas in counted)


def test_predictions_leave_the_device_in_one_copy(monkeypatch):
    labels = torch.randint(0, 3, (1, 4, 4))
    kinds = []

    class OnDevice:
        device, dtype = torch.device('cuda'), torch.long

        def to(self, dtype):
            kinds.append(dtype)
            return labels.to(dtype)

    metric = PerClassIoUMetric()
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    sample = dict(pred_sem_seg=dict(data=OnDevice()), gt_sem_seg=dict(data=labels))
    confusion = ConfusionMetric()
    for each in (metric, confusion):  # as MMEngine's evaluator does, and tools/test.py has both
        each.process({}, [sample])
    assert kinds == [torch.uint8] and metric.results[0][0].sum() == confusion.results[0][1].sum() == 16


# --- batches ---------------------------------------------------------------------------------------


def drawn(size: tuple[int, int] = (16, 24), number: int = 3, dtype: torch.dtype = torch.uint8) -> list[dict]:
    """Samples as a pipeline gives them."""
    samples = []
    for i in range(number):
        sample = SegDataSample(metainfo=dict(img_path=f'{i}.png', img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, *size)))
        samples.append(dict(inputs=torch.randint(0, 256, (3, *size)).to(dtype), data_samples=sample))
    return samples


PREPROCESSING = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_val=0,
                     seg_pad_val=255)


@pytest.mark.parametrize('samples', [drawn(), drawn((20, 32)), [*drawn((8, 9)), *drawn()], drawn(dtype=torch.float)])
@pytest.mark.parametrize('collate', [pseudo_collate, gathered])
@pytest.mark.parametrize('padding', [dict(size=(20, 32)), dict(size_divisor=16)])
def test_a_batch_is_prepared_as_by_mmsegmentation(samples, collate, padding):
    theirs = SegDataPreProcessor(**PREPROCESSING, **padding)(pseudo_collate(samples), True)
    before = [sample['inputs'].clone() for sample in samples]
    mine = LeanSegDataPreProcessor(**PREPROCESSING, **padding)(collate(samples), True)
    assert torch.equal(mine['inputs'], theirs['inputs']) and mine['inputs'].dtype == theirs['inputs'].dtype
    for one, other in zip(mine['data_samples'], theirs['data_samples']):
        assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data) and one.gt_sem_seg.data.dtype == torch.long
        assert {k: tuple(v) if k.endswith(('shape', 'size')) else v for k, v in one.metainfo_items()} == {
            k: tuple(v) if k.endswith(('shape', 'size')) else v for k, v in other.metainfo_items()}
    assert all(torch.equal(sample['inputs'], image) for sample, image in zip(samples, before)), 'nothing is overwritten'


@pytest.mark.parametrize('padding', [None, dict(size_divisor=32)])
def test_a_tested_image_is_prepared_as_by_mmsegmentation(padding):
    samples = drawn(number=2)
    theirs, mine = (kind(**PREPROCESSING, test_cfg=padding)(pseudo_collate(samples), False)
                    for kind in (SegDataPreProcessor, LeanSegDataPreProcessor))
    assert torch.equal(mine['inputs'], theirs['inputs'])
    assert [sample.metainfo for sample in mine['data_samples']] == [
        sample.metainfo for sample in theirs['data_samples']]


def test_a_gathered_batch_is_one_tensor_of_bytes_for_images_and_one_for_labels():
    batch = gathered(drawn())
    assert batch['inputs'].dtype == batch['labels'].dtype == torch.uint8 and batch['labels'].shape == (3, 1, 16, 24)
    for sample, label in zip(batch['data_samples'], batch['labels']):
        assert sample.gt_sem_seg.data.data_ptr() == label.data_ptr()
    preprocessor = LeanSegDataPreProcessor(**PREPROCESSING, size=(16, 24))
    with Operations() as seen:
        preprocessor(batch, True)
    assert seen.counts.total() <= 5  # to int64; flip, to float32, minus, divided by
    far = drawn()
    far[0]['data_samples'].gt_sem_seg.data[0, 0, 0] = 300
    assert 'labels' not in gathered(far)


def test_labels_of_other_sizes_travel_as_bytes_in_pinned_memory_too(monkeypatch):
    """A batch of the paper's random scales nearly always has some."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda tensor: pinned.append(tensor.dtype) or tensor.clone())
    batch = gathered([*drawn((8, 9)), *drawn()]).pin_memory()
    assert pinned == [torch.uint8] * 12
    for sample, label in zip(batch['data_samples'], batch['labels'], strict=True):
        assert sample.gt_sem_seg.data.data_ptr() == label.data_ptr() and label.dtype == torch.uint8
    with Operations() as seen:
        LeanSegDataPreProcessor(**PREPROCESSING, size=(16, 24)).normalised(batch['inputs'])
    assert seen.counts.total() == 5  # one after the other; flip, to float32, minus, divided by


def test_what_a_hook_has_done_to_a_label_is_trained_with():
    batch = gathered(drawn())
    batch['data_samples'][1].gt_sem_seg = PixelData(data=torch.full((1, 16, 24), 7))
    batch['data_samples'][2].gt_sem_seg.data.fill_(9)
    prepared = LeanSegDataPreProcessor(**PREPROCESSING, size=(16, 24))(batch, True)['data_samples']
    assert (prepared[1].gt_sem_seg.data == 7).all() and (prepared[2].gt_sem_seg.data == 9).all()
    batch['data_samples'][1].gt_sem_seg = PixelData(data=batch['labels'][1][:, :8])  # which begins where the map does
    padded = LeanSegDataPreProcessor(**PREPROCESSING, size=(16, 24))(batch, True)['data_samples'][1].gt_sem_seg.data
    assert (padded[:, 8:] == PREPROCESSING.get('seg_pad_val', 255)).all()


# --- the runner ------------------------------------------------------------------------------------


class Counting(Hook):
    """Begins to count what an iteration reads from the device, and notes whether its batch was gathered."""

    def __init__(self, reads: list) -> None:
        self.reads, self.gathered = reads, []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.gathered.append('labels' in data_batch)
        self.reads.append(0)


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """How often each iteration has read numbers from tensors; counted from the first entry on."""
    reads: list[int] = []

    def counted(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def read(tensor: torch.Tensor, *rest):
            if reads and tensor.is_floating_point():
                reads[-1] += 1
            return original(tensor, *rest)

        monkeypatch.setattr(torch.Tensor, name, read)

    for name in ('item', 'tolist', '__bool__', '__float__', '__int__', 'numpy'):
        counted(name)
    return reads


def test_an_iteration_reads_from_the_device_once(tmp_path, reads):
    """The losses and the norm of the gradients together, before the step; once more where gates are logged."""
    cfg = tiny_config(tmp_path, train_cfg__max_iters=4, default_hooks__checkpoint__interval=100,
                      default_hooks__logger__interval=4, model__decode_head__dropout_ratio=0.)
    counting = Counting(reads)
    run(cfg, counting)
    assert reads[:3] == [1, 1, 2] and all(counting.gathered)  # an epoch of 3 ends with a log


def test_an_iteration_of_a_sweep_reads_from_the_device_twice_however_many_heads(tmp_path, reads):
    """Losses and norms of gradients of all heads, before their steps; and the losses, for the log."""
    cfg = tiny_config(tmp_path, train_cfg__max_iters=3, default_hooks__logger__interval=100, custom_hooks=[],
                      model__backbone__prompt=None, model__backbone__temperature=False,
                      model__decode_head__dropout_ratio=0., default_hooks__checkpoint__interval=100)
    run(swept(cfg, ['lr=0.01,0.02,0.03,0.04'], 'tiny'), Counting(reads))
    assert reads[:2] == [2, 2]


class NoDouble(TorchDispatchMode):
    """Refuses float64 as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.double:
            raise TypeError('Cannot convert a MPS Tensor to float64 dtype as the MPS framework does not support it')
        return found


def test_a_run_needs_no_float64(tmp_path):
    """Not tried on a Mac: this stands in for one."""
    def start(runner, batch: dict) -> None:
        mode = NoDouble()
        mode.__enter__()
        ended.append(mode)

    ended: list[NoDouble] = []
    cfg = tiny_config(tmp_path, train_cfg__max_iters=3, default_hooks__logger__interval=1)
    try:
        run(cfg, At(2, start))
    finally:
        for mode in ended:
            mode.__exit__(None, None, None)
    assert len(ended) == 1


def test_numbers_are_fetched_in_their_own_precision():
    found = to_host(dict(a=torch.tensor([1., 2.]), b=torch.tensor(0.1, dtype=torch.double)))
    assert found == dict(a=[1., 2.], b=[0.1]) and to_host({}) == {}
    with NoDouble():
        assert to_host(dict(a=torch.tensor(0.5), b=torch.tensor(2., dtype=torch.half))) == dict(a=[0.5], b=[2.])


@pytest.mark.cuda
def test_the_deterministic_mode_trains_and_evaluates_on_a_gpu(monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    sizes = Sizes(arch='tiny', depth=4, image=64, classes=7, prompts=3, channels=16, batch=2)
    model = build('ours', read_config(CONFIG), sizes).cuda()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.use_deterministic_algorithms(True)
    try:
        found = []
        for _ in range(2):
            model.load_state_dict(state)
            torch.manual_seed(0)
            work.TrainingStep(model, read_config(CONFIG), work.make_batch(sizes, 0, 'cuda'))()
            found.append(np.concatenate([p.detach().cpu().numpy().ravel() for p in model.parameters()]))
        assert np.array_equal(*found)
        sample, = work.Evaluation(model, sizes, torch.device('cuda'))()
        label = torch.zeros_like(sample.pred_sem_seg.data[0])
        IoUMetric.intersect_and_union(sample.pred_sem_seg.data[0], label, 7, 255)
    finally:
        torch.use_deterministic_algorithms(False)

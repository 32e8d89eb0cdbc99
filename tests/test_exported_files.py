"""Files written by mmseg_gpt.export compute what the model computes, and are kept only then."""

import json
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, randomise
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from mmseg.registry import DATASETS
from tiny import small_config, write_data
from torch import Tensor, nn

from mmseg_gpt.apis import ServedTask, load_task
from mmseg_gpt.apis.task import build_model
from mmseg_gpt.apis.tiles import TaskLabeller, Tiling, predict_in_tiles
from mmseg_gpt.export import Choices, Exported, FileLabeller, Program, export_task, folded, measure, onnx_file, write
from mmseg_gpt.export import program as program_module
from mmseg_gpt.models import GatedPromptViT

runtime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
PREPROCESS = Choices(preprocess=True, layout='nhwc')
PROMPTS = [None, *(dict(type=name, num_tokens=3) for name in (
    'ShallowPrompt', 'DeepPrompt', 'GatedPrompt', 'HardGatedPrompt'))]


@pytest.fixture(scope='module')
def task(tmp_path_factory) -> ServedTask:
    """A segmentor of 9 classes with random weights, whose data lies in its folder."""
    folder = tmp_path_factory.mktemp('task')
    cfg = small_config()
    write_data(folder / 'data')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(folder / 'data')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(1)  # before the head is drawn, whose labels would else depend on the tests before
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build_model(cfg.copy())
    randomise(model.backbone)
    test_data = cfg.test_dataloader.dataset
    classes = test_data.get('metainfo', {}).get('classes') or DATASETS.get(test_data.type).METAINFO['classes']
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
        classes=classes, palette=[[i, i, i] for i in range(len(classes))]))), folder / 'model.pth')
    task = load_task('tiny', cfg, folder / 'model.pth', frozen=False)
    task.checkpoint = folder / 'model.pth'
    return task


@pytest.fixture(scope='module')
def exported(task, tmp_path_factory) -> Exported:
    """The segmentor as an ONNX file that normalises."""
    return export_task(task, tmp_path_factory.mktemp('exported') / 'model.onnx', PREPROCESS)


def session(path: Path) -> 'runtime.InferenceSession':
    return runtime.InferenceSession(path, providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('prompt', PROMPTS, ids=str)
@pytest.mark.parametrize('options', [
    dict(start_block=1, out_indices=(0, 2), lora=dict(rank=2)), dict(biases=True, adapter=dict(width=4)),
    dict(rotary='float32', qkv_bias='qv', biases=True, lora=dict(rank=2, targets=('attn.qkv', 'mlp.fc1')))], ids=str)
def test_a_folded_vit_computes_the_same_with_fewer_weights(prompt, options, tiny_vit):
    vit = tiny_vit(prompt=prompt, temperature=True, **options)
    plain, images = folded(vit), torch.randn(2, 3, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(plain(images), vit(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    names = [name for name, _ in plain.named_parameters()]
    assert len(plain.blocks) == max(vit.out_indices) + 1
    assert not [name for name in names if 'lora' in name or 'gate_prior' in name or 'update' in name]
    assert 'temperature' not in names and vit.temperature is not None
    assert not any(weight.requires_grad for weight in plain.parameters())


def test_an_onnx_file_labels_images_of_any_size_and_says_what_it_is(task, exported):
    found = exported
    assert found.size is None and found.difference < 1e-4 and found.equal_labels > 0.999 and len(found.shapes) == 3
    assert [file.name for file in found.path.parent.iterdir()] == ['model.onnx']
    opened = session(found.path)
    (images, ), (labels, ) = opened.get_inputs(), opened.get_outputs()
    assert images.shape == ['batch', 'height', 'width', 3] and images.type == 'tensor(uint8)'
    assert labels.shape == ['batch', 'height', 'width']
    about = opened.get_modelmeta().custom_metadata_map
    assert json.loads(about['classes'])[2] == task.classes[2] and json.loads(about['palette'])[2] == [2, 2, 2]
    assert json.loads(about['mean']) == pytest.approx([123.675, 116.28, 103.53]) and 'licence' in about
    # As the model labels the same file of whole patches: it is read with blue first.
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
    prepared = task.model.data_preprocessor(dict(inputs=[torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)],
                                                 data_samples=[BaseDataElement()]))['inputs']
    with torch.no_grad():
        wanted = task.model.encode_decode(prepared, [dict(img_shape=prepared.shape[2:])]).argmax(1)
    (ours, ) = opened.run(None, {'images': picture[None]})
    assert len(np.unique(ours)) > 2 and (ours == wanted.numpy()).mean() > 0.999


def test_a_file_labels_large_images_in_tiles(task, exported):
    image, tiling = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).repeat(12, 0).repeat(11, 1), Tiling(32)
    image = image.astype(np.uint8)
    wanted = predict_in_tiles(TaskLabeller(task, tiling), image).pred_sem_seg.data[0].numpy()
    found = FileLabeller(exported.path, tiling).label(image)
    assert (found == wanted).mean() > 0.999 and len(np.unique(found)) > 2


def test_what_is_left_to_the_caller_is_said(task, monkeypatch):
    cfg = task.cfg.copy()
    pipeline = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    cfg.test_dataloader.dataset.pipeline = [*pipeline[:1], dict(type='mmseg.Resize', scale=(64, 32)), *pipeline[1:]]
    monkeypatch.setattr(task, 'cfg', cfg)
    monkeypatch.setattr(task.model, 'test_cfg', Config(dict(mode='slide', crop_size=(32, 32), stride=(20, 24))))
    first, second = write.left_to_caller(task)
    assert 'Resize(scale=(64, 32))' in first and second.endswith('with a stride of 20 x 24')


def test_the_command_takes_a_folder_of_adapt(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    tool, out = __import__('export'), str(tmp_path / 'a.onnx')
    (tmp_path / 'best.pth').touch()
    (tmp_path / 'result.json').write_text(json.dumps(dict(
        task='segmentation', metric='mIoU', score=1, measured_on='val', classes=['a', 'b'], per_class=[], pictures={},
        config='elsewhere/config.py', checkpoint='elsewhere/best.pth', seconds=1)))
    for given, config, checkpoint in (([str(tmp_path)], tmp_path / 'config.py', tmp_path / 'best.pth'),
                                      (['hf://me/mine'], 'hf://me/mine', 'hf://me/mine'),
                                      (['a.py', '--preprocess', str(tmp_path / 'best.pth')], 'a.py',
                                       tmp_path / 'best.pth')):
        monkeypatch.setattr(sys, 'argv', ['export.py', *given, out])
        args = tool.parse_args()
        assert (args.config, args.checkpoint, str(args.out)) == (str(config), str(checkpoint), out)


def test_probabilities_and_a_fixed_size(task, tmp_path):
    found = export_task(task, tmp_path / 'model.onnx', Choices('probabilities', size=(32, 24)))
    assert found.size == (32, 24) and found.why_fixed
    images = torch.randn(4, 3, 32, 24)
    (ours, ) = session(found.path).run(None, {'images': images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(ours), Program(task.model, 'probabilities', fold=False)(images),
                                   rtol=1e-3, atol=1e-5)
    with pytest.raises(Exception, match='INVALID_ARGUMENT'):
        session(found.path).run(None, {'images': torch.randn(1, 3, 32, 32).numpy()})


def test_answers_of_images_that_are_no_whole_patches_are_those_of_predict(task, monkeypatch):
    images = torch.randn(1, 3, 19, 27)
    with torch.no_grad():
        wanted = task.model.encode_decode(nn.functional.pad(images, (0, 5, 0, 5)), [dict(img_shape=(24, 32))])
        torch.testing.assert_close(Program(task.model, 'logits', fold=False)(images), wanted[..., :19, :27])
        monkeypatch.setattr(task.model.data_preprocessor, 'test_cfg', None)  # of a config that pads nothing
        wanted = task.model.encode_decode(images, [dict(img_shape=(19, 27))])
        torch.testing.assert_close(Program(task.model, 'logits', fold=False)(images), wanted)


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
def test_a_program_of_pytorch_pads_images_of_any_size(layout, task):
    class Small(Program):
        """A program that pads and crops as others do, with a model that is exported in no time."""

        def logits(self, images: Tensor) -> Tensor:
            return nn.functional.interpolate(nn.functional.avg_pool2d(images, self.patch), scale_factor=self.patch)

    choices = Choices('labels', True, layout)
    program = Small(task.model, *astuple(choices)[:3], without_slices=True)
    sliced = Small(task.model, *astuple(choices)[:3])  # as in ONNX files
    images = {size: write.draw(task, choices, 2, *size) for size in ((16, 24), (16, 21), (19, 24), (9, 30), (8, 8))}
    exported = write.exported_program(program, images.pop((16, 24)), choices, None).module()
    with pytest.raises(ValueError, match=r'does not take images .* give --size'):  # of a single patch
        write.answers_of_file(exported, images.pop((8, 8)))
    for size, batch in images.items():
        (labels, ), (wanted, ) = write.answers_of_file(exported, batch), write.answers_of(sliced, batch)
        assert labels.shape == (2, *size) and (labels == wanted).all() and len(np.unique(labels)) == 3


@pytest.mark.slow
@pytest.mark.parametrize('preprocess', [False, True])
def test_a_program_of_pytorch(preprocess, task, tmp_path):
    choices = Choices('logits', preprocess)
    found = export_task(task, tmp_path / 'model.pt2', choices)
    extra = {'about.json': ''}
    program, images = torch.export.load(found.path, extra_files=extra).module(), write.draw(task, choices, 1, 37, 50)
    with torch.no_grad():
        torch.testing.assert_close(program(images), Program(task.model, 'logits', preprocess, fold=False)(images),
                                   rtol=1e-3, atol=1e-4)
    assert json.loads(extra['about.json'])['output'] == 'logits'
    assert not [name for name in program.state_dict() if 'auxiliary' in name]


@pytest.mark.parametrize(('choices', 'type_'), [
    (Choices(half=True, size=(32, 32)), 10), (Choices('probabilities', int8=True, size=(32, 32)), 2)])
def test_smaller_weights(choices, type_, task, tmp_path):
    import onnx
    found = export_task(task, tmp_path / 'model.onnx', choices)
    assert 1e-6 < found.difference < write.BOUNDS[choices.precision]
    weights = [weight for weight in onnx.load(found.path).graph.initializer if weight.data_type == type_]
    assert sum(np.prod(weight.dims) for weight in weights) > 500


def test_a_file_that_differs_is_not_kept(task, tmp_path, monkeypatch):
    right = program_module.evaluated

    def wrong(model: nn.Module) -> nn.Module:
        model = right(model)
        model.backbone.blocks[0].attn.qkv.weight *= 1.5
        return model

    monkeypatch.setattr(program_module, 'evaluated', wrong)
    (tmp_path / 'model.onnx').write_text('an earlier one')
    for name in ('model.onnx', 'model.pt2'):
        with pytest.raises(ValueError, match='nothing is kept'):
            export_task(task, tmp_path / name, Choices('logits', size=(16, 16)))
    assert [file.name for file in tmp_path.iterdir()] == ['model.onnx']
    assert (tmp_path / 'model.onnx').read_text() == 'an earlier one'


@pytest.mark.parametrize(('name', 'choices', 'said'), [
    ('a.pb', {}, 'must end in .onnx or .pt2'), ('a.pt2', dict(half=True), 'are for .onnx files'),
    ('none/a.onnx', {}, 'no such folder'), ('a.onnx', dict(layout='nhwc'), 'needs preprocess'),
    ('a.onnx', dict(half=True, int8=True), 'fp16 or int8'), ('a.onnx', dict(size=(0, 8)), 'must be positive')])
def test_what_cannot_be_is_refused(name, choices, said, task, tmp_path):
    with pytest.raises(ValueError, match=said):
        export_task(task, tmp_path / name, Choices(**choices))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_said(task, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ValueError, match=r'pip install "mmseg_gpt\[export\]"'):
        export_task(task, tmp_path / 'a.onnx')


def test_heads_that_pool_have_a_fixed_size(task):
    task = ServedTask(nn.Sequential(nn.AdaptiveAvgPool2d(3)), task.vit, '', None, None)
    task.model.test_cfg = dict(mode='slide', crop_size=(32, 48))
    size, why = write.fixed_size(task, Choices())
    assert size == (32, 48) and 'pools' in why


def test_a_file_is_measured_as_the_model_is(task, exported, monkeypatch):
    before = measure(task.cfg, task.checkpoint)
    after = measure(task.cfg, task.checkpoint, exported.path, PREPROCESS)
    assert before['mIoU'] > 0 and after == pytest.approx(before, abs=0.2)
    right = onnx_file.run
    monkeypatch.setattr(onnx_file, 'run', lambda *inputs: {name: -found for name, found in right(*inputs).items()})
    wrong = measure(task.cfg, task.checkpoint, exported.path, PREPROCESS)
    assert wrong != pytest.approx(before, abs=0.05)


def test_a_classifier(tmp_path):
    pytest.importorskip('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier', data_preprocessor=dict(mean=[127.5] * 3, std=[50.] * 3, to_rgb=True),
            head=dict(type='LinearClsHead', in_channels=24, num_classes=5),
            backbone=dict(type='GatedPromptViT', arch=dict(embed_dims=24, num_layers=3, num_heads=2, mlp_ratio=2),
                          img_size=32, patch_size=8, out_type='cls_token', prompt=PROMPTS[3], temperature=True))).eval()
    randomise(model.backbone)
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[]))))
    task = ServedTask(model, model.backbone, 'random', None, None, cfg=cfg)
    found = export_task(task, tmp_path / 'model.onnx', Choices('probabilities', preprocess=True))
    images = torch.randint(0, 256, (3, 3, 24, 40), dtype=torch.uint8)
    (ours, ) = session(found.path).run(None, {'images': images.numpy()})
    with torch.no_grad():
        wanted = model((images.float() - 127.5) / 50).softmax(1)
    torch.testing.assert_close(torch.from_numpy(ours), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_command(task, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    tool = __import__('export')
    cfg = tmp_path / 'small.py'
    task.cfg.dump(cfg)
    monkeypatch.setattr(sys, 'argv', ['export.py', str(cfg), str(task.checkpoint), str(tmp_path / 'a.onnx'),
                                      '--measure'])
    tool.main()
    printed = capsys.readouterr().out
    assert 'number, height and width of images are open' in printed and 'largest difference' in printed
    assert 'mIoU' in printed and (tmp_path / 'a.onnx').is_file()


def test_the_vit_of_the_task_is_not_changed(task):
    assert isinstance(task.vit, GatedPromptViT) and task.vit.temperature is not None and len(task.vit.blocks) == 3
    assert task.model.auxiliary_head is not None

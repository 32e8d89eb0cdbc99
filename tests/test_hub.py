"""Models on the hub: pushed and pulled by a server on the loopback address, bit by bit the same, and never run."""

import copy
import hashlib
import json
import math
import pickle
import runpy
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import serving
from hub_server import TOKEN, HubServer, Repo
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from tiny import small_config

from mmseg_gpt.adapters import frozen_source
from mmseg_gpt.apis import AdapterPool, load_task
from mmseg_gpt.checkpoints import CheckpointError, fetch, read_file
from mmseg_gpt.checkpoints.adapter_file import DIGEST, RECORD, digest_of, write_adapter
from mmseg_gpt.checkpoints.plain_config import NotPlain, check_plain, plain
from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.hub import HubError, publish, pull, push, read_name
from mmseg_gpt.hub.make import PublishError, is_public
from mmseg_gpt.hub.push import find_target
from mmseg_gpt.hub.results import results_beside
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.own_data import load
from mmseg_gpt.recipes.methods import METHODS
from mmseg_gpt.resources import config_names
from mmseg_gpt.settings import settings_of

hub = pytest.importorskip('huggingface_hub')
pytest.importorskip('huggingface_hub.constants')
save_file = pytest.importorskip('safetensors.torch').save_file
TOOLS = Path(__file__).parents[1] / 'tools'
ARCH = dict(embed_dims=8, num_layers=3, num_heads=2, mlp_ratio=2)
CLASSES = [f'class {i}' for i in range(9)]
NAME = 'me/tiny'


def small_classifier() -> Config:
    """A classifier of 3 classes with LoRA."""
    cfg = find_config('cls_lora_mae_cub')
    cfg.model.backbone.update(arch=ARCH, img_size=32, patch_size=8)
    cfg.model.head.update(in_channels=8, num_classes=3)
    for part in [cfg.model.get('neck') or {}]:
        part.update({name: 8 for name in part if name in ('in_features', 'in_channels')})
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32), backend='pillow'), dict(type='PackInputs')]
    return cfg


def make(folder: Path, cfg: Config, classes: list[str], **backbone) -> tuple[Config, Path]:
    """Writes a ViT, and a checkpoint of the model of a config with drawn weights, as a training would have left it."""
    torch.manual_seed(0)
    vit = folder / 'pretrained/vit.pth'
    if not vit.exists():
        vit.parent.mkdir(parents=True)
        torch.save(GatedPromptViT(arch=ARCH, img_size=32, patch_size=8, out_type='cls_token').state_dict(), vit)
    cfg.model.backbone.update(init_cfg=dict(type='PretrainedViT', checkpoint=str(vit)), **backbone)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        settings = copy.deepcopy(cfg.model)
        if cfg.get('data_preprocessor'):
            settings.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = MODELS.build(settings)
    model.backbone.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    palette = [[i, 2 * i, 255] for i in range(len(classes))]
    meta = dict(dataset_meta=dict(classes=classes, palette=palette), settings=settings_of(cfg))
    state = model.state_dict()
    if model.backbone.frozen:
        meta['frozen'] = frozen_source(model)
        state = {name: value for name, value in state.items()
                 if name.removeprefix('backbone.') not in model.backbone.vit_state()}
    file = folder / f'{cfg.default_scope}_{model.backbone.frozen}.pth'
    write_checkpoint(dict(state_dict=state, meta=meta), file)
    return cfg, file


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('hub')


@pytest.fixture(scope='module')
def models(folder) -> dict[str, tuple[Config, Path]]:
    """A segmentor whose checkpoint holds adapters only, and a classifier with LoRA."""
    find_config('demo/setr_pup_gpt_mae_sample')
    made = dict(segmentation=make(folder, small_config(), CLASSES))
    pytest.importorskip('mmpretrain')
    made['classification'] = make(folder, small_classifier(), ['cat', 'dog', 'kite'])
    return made


def set_endpoint(address: str, monkeypatch) -> None:
    """Makes huggingface_hub, which reads HF_ENDPOINT when it is imported, ask another server."""
    monkeypatch.setattr(hub.constants, 'ENDPOINT', address)
    monkeypatch.setattr(hub.constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                        address + '/{repo_id}/resolve/{revision}/{filename}')


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A server that huggingface_hub takes for the hub, an empty cache, and a token."""
    with serving(HubServer()) as server:
        set_endpoint(server.endpoint, monkeypatch)
        monkeypatch.setattr(hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(hub.constants, 'HF_HUB_DISABLE_XET', True)
        monkeypatch.setenv('HF_TOKEN', TOKEN)
        yield server


@pytest.fixture(scope='module')
def files(models, folder) -> Path:
    """Adapter file and card of the segmentor."""
    results = dict(metric='mIoU', scores={'mIoU': 51.25}, per_class=[{'class': 'a|b', 'IoU': None}])
    publish(NAME, load_task('it', *models['segmentation']), folder / 'made', results, 'cc-by-4.0')
    return folder / 'made'


@pytest.fixture
def published(files, tmp_path) -> Callable[..., Path]:
    """A maker of the segmentor's adapter file and card with some score; returns their folder."""

    def with_score(score: float = 51.25) -> Path:
        shutil.copytree(files, tmp_path / 'made', dirs_exist_ok=True)
        content = read_file(files / 'adapter.safetensors')
        record = dict(content['meta']['record'], results=dict(metric='mIoU', scores={'mIoU': score}))
        write_adapter(tmp_path / 'made/adapter.safetensors', content['state_dict'], record)
        return tmp_path / 'made'

    return with_score


def answers(task: object) -> torch.Tensor:
    """What a task says of a drawn image, as raw numbers."""
    pixels = np.random.default_rng(1).integers(0, 256, (45, 37, 3), dtype=np.uint8)
    prepared = task.prepare(pixels)
    batch = {key: [prepared[key]] for key in ('inputs', 'data_samples')}
    with torch.no_grad():
        inputs = task.model.data_preprocessor(batch, False)['inputs']
        raw = task.model(inputs, mode='tensor')
    return raw if isinstance(raw, torch.Tensor) else raw[0]


def run_tool(name: str, *arguments: object, monkeypatch) -> None:
    """Runs a tool in this process."""
    monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *map(str, arguments)])
    monkeypatch.syspath_prepend(str(TOOLS))
    runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')


@pytest.mark.parametrize('kind', ['segmentation', 'classification'])
def test_what_is_pulled_answers_bit_by_bit_as_what_was_pushed(kind, models, folder, server, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    cfg, checkpoint = models[kind]
    cfg.dump(folder / 'mine.py')
    Path(folder, 'metrics.json').write_text(json.dumps({
        'checkpoint': str(checkpoint), 'mIoU': 51.25, 'per_class': {'class 0': 50.}, 'parameters': {'trained': 1}}))
    run_tool('push', NAME, 'mine.py', checkpoint, '--license', 'apache-2.0', monkeypatch=monkeypatch)
    assert server.repos[NAME].private
    run_tool('pull', NAME, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    output = '--out predictions' if kind == 'segmentation' else '--json predictions.json'
    assert f'predict.py --task tiny hf://{NAME} --images photo.jpg {output}' in said and 'mIoU 51.25' in said
    before, asked = load_task('it', cfg, checkpoint), len(server.asked)
    name = f'hf://{NAME}'
    pool = AdapterPool('cpu')
    pool.add('pulled', name, name)
    pool.add('own config', cfg, name)
    for task in pool.tasks.values():
        assert torch.equal(answers(task), answers(before))
        assert task.classes == before.classes and task.palette == before.palette
    assert load(name).classes == tuple(before.classes)
    assert len(server.asked) == asked  # nothing is asked of the hub once a model was pulled


def test_of_several_tests_the_latest_counts(tmp_path):
    for name, score in (('metrics', 3.), ('metrics.1', 1.), ('metrics.2', 2.), ('metrics_tta', 4.)):
        (tmp_path / f'{name}.json').write_text(json.dumps({'checkpoint': 'a.pth', 'mIoU': score}))
    assert results_beside(tmp_path / 'a.pth')['scores'] == {'mIoU': 3.}
    (tmp_path / 'metrics.json').write_text(json.dumps({'checkpoint': 'b.pth', 'mIoU': 3.}))
    assert results_beside(tmp_path / 'a.pth')['scores'] == {'mIoU': 2.}
    torch.save(dict(meta=dict(time='now'), state_dict={}), tmp_path / 'a.pth')
    for written, score in (('before', 2.), ('now', 3.)):
        (tmp_path / 'metrics.json').write_text(json.dumps(
            {'checkpoint': 'a.pth', 'checkpoint_written': written, 'mIoU': 3.}))
        assert results_beside(tmp_path / 'a.pth')['scores'] == {'mIoU': score}


def test_files_on_the_hub_hold_nothing_of_the_vit_and_no_path(files, folder):
    made = files
    content = read_file(made / 'adapter.safetensors')
    assert not any('patch_embed' in name or '.attn.' in name for name in content['state_dict'])
    assert sorted(path.name for path in made.iterdir()) == ['README.md', 'adapter.safetensors']
    for file in made.iterdir():
        assert str(folder).encode() not in file.read_bytes()
    text = (made / 'README.md').read_text()
    front = yaml.safe_load(text.split('---')[1])
    assert front['license'] == 'cc-by-4.0' and front['pipeline_tag'] == 'image-segmentation'
    assert front['model-index'][0]['results'][0]['metrics'] == [dict(type='mean_iou', name='mIoU', value=51.25)]
    sha256 = hashlib.sha256((folder / 'pretrained/vit.pth').read_bytes()).hexdigest()
    assert sha256 in text and f"load('hf://{NAME}')" in text and r'a\|b' in text
    assert content['meta']['frozen']['sha256'] == sha256 and content['meta']['dataset_meta']['classes'] == CLASSES


def test_an_adapter_file_goes_wherever_a_checkpoint_goes(models, published, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(folder)
    file = published() / 'adapter.safetensors'
    cfg = find_config(str(file))
    assert cfg.model.backbone.init_cfg.checkpoint == 'pretrained/vit.pth'
    assert torch.equal(answers(load_task('it', cfg, file)), answers(load_task('it', *models['segmentation'])))
    assert load(file).predict(np.zeros((40, 50, 3), np.uint8)).shape == (40, 50)


def test_a_vit_that_was_trained_is_pushed_only_on_request_and_then_whole(folder, tmp_path, models, server,
                                                                            monkeypatch):
    whole = make(folder, small_config(), CLASSES, frozen=False)
    task = load_task('full', *whole, frozen=False)
    with pytest.raises(PublishError, match=r'--whole pushes all of it, \d+ MiB'):
        publish(NAME, task, tmp_path)
    assert not any(tmp_path.iterdir())
    file = publish(NAME, task, tmp_path, whole=True).adapter
    assert torch.equal(answers(load_task('it', find_config(str(file)), file, frozen=False)), answers(task))
    with pytest.raises(PublishError, match='is frozen'):
        publish(NAME, load_task('it', *models['segmentation']), tmp_path, whole=True)
    pushed(file.parent)
    assert pull(read_name(NAME)).missing == ''
    for option in (['--vit', folder / 'pretrained/vit.pth'], ['--fetch-vit']):
        with pytest.raises(SystemExit, match=f'^{option[0]}: the ViT of hf://{NAME} is inside.*leave {option[0]} out'):
            run_tool('pull', NAME, *option, monkeypatch=monkeypatch)


def test_another_vit_is_refused(folder, published, tmp_path, monkeypatch):
    file = published() / 'adapter.safetensors'
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r'pretrained/vit\.pth does not exist(?s:.)*trained on vit\.pth \(SHA'):
        load_task('it', find_config(str(file)), file)
    (tmp_path / 'pretrained').mkdir()
    torch.save(GatedPromptViT(arch=ARCH, img_size=32, patch_size=8).state_dict(), tmp_path / 'pretrained/vit.pth')
    with pytest.raises(CheckpointError, match='holds adapters of another ViT'):
        load_task('it', find_config(str(file)), file)


def test_every_config_of_the_package_can_be_shared():
    names = [name for name in config_names() if not name.startswith('cls_') and 'pretrain' not in name]
    for name in [*names, *(f'cls_{method}_mae_cub' for method in METHODS), 'cls_gpt_dinov3_cub', 'cls_gpt_dinov2_dogs']:
        cfg = find_config(name)
        parts = dict(model=cfg.model, test_pipeline=cfg.test_dataloader.dataset.pipeline,
                     **{key: cfg[key] for key in ('data_preprocessor', 'tta_pipeline', 'tta_model') if cfg.get(key)})
        check_plain(json.loads(json.dumps({key: plain(value, key) for key, value in parts.items()})))


# --- The hub ---


def pushed(folder: Path, **options) -> object:
    return push(find_target(read_name(NAME), **options), folder, **options)


def test_a_second_push_keeps_history_and_pull_fetches_the_newest(published, server, folder, monkeypatch):
    monkeypatch.chdir(folder)
    made = published()
    first = pushed(made)
    old = pull(read_name(NAME))
    assert old.commit == first.commit
    made = published(1.)
    second = pushed(made)
    assert fetch(f'hf://{NAME}') == old.file  # only pull fetches what is new
    assert pull(read_name(NAME)).commit == second.commit != first.commit
    assert pull(read_name(f'{NAME}@{first.commit}')).record == old.record
    with pytest.raises(HubError, match='has no revision v2'):
        pull(read_name(NAME, 'v2'))
    push(find_target(read_name(NAME, 'v2')), made)
    assert pull(read_name(NAME, 'v2')).record['results']['scores'] == {'mIoU': 1.}


def test_a_card_that_was_changed_by_hand_stays(published, server, monkeypatch):
    made = published()
    pushed(made)
    server.repos[NAME].commit('main', {'README.md': b'# my own words'})
    assert pushed(published(1.)).keeps_card
    files = server.repos[NAME].commits[server.repos[NAME].branches['main']]
    assert files['README.md'] == b'# my own words'
    with pytest.raises(SystemExit, match='write the licence into it, and leave out --license'):
        run_tool('push', NAME, 'a.py', __file__, '--license', 'mit', monkeypatch=monkeypatch)


def test_nothing_becomes_public_unasked(published, server):
    made = published()
    pushed(made, public=True)
    assert not server.repos[NAME].private
    with pytest.raises(HubError, match=r'is public.*--public'):
        find_target(read_name(NAME))
    server.repos[NAME].private = True
    with pytest.raises(HubError, match='is private'):
        find_target(read_name(NAME), public=True)


def test_a_repository_of_something_else_is_left_alone(published, server):
    pushed(published())
    repo = server.repos[NAME]
    repo.commits[repo.branches['main']] = {'model.bin': b'x'}
    with pytest.raises(HubError, match=r'holds something else \(model\.bin\)'):
        find_target(read_name(NAME))


def test_a_push_onto_somebody_elses_commit_is_refused(published, server):
    made = published()
    pushed(made)
    target = find_target(read_name(NAME))
    server.repos[NAME].commit('main', {'x': b''})
    with pytest.raises(HubError, match='was changed by somebody else meanwhile'):
        push(target, published(2.))


@pytest.mark.parametrize('part, status, said', [
    ('repos/create', 403, 'your token may not do this'), ('preupload', 500, 'answered with the error 500'),
    ('lfs/objects/batch', 401, 'does not know your token'), ('commit', 403, 'your token may not do this')])
def test_what_the_hub_refuses_is_one_sentence_without_the_token(part, status, said, published, server, monkeypatch):
    server.fail[part] = status
    monkeypatch.setattr('huggingface_hub.utils._http.time.sleep', lambda _: None)
    with pytest.raises(HubError, match=said) as error:
        pushed(published())
    assert TOKEN not in str(error.value) and '\n' not in str(error.value) and NAME in str(error.value)


def test_a_name_that_is_not_there_or_not_ones_own(server, monkeypatch, published):
    with pytest.raises(HubError, match=r'hf://me/none is not on http://127\.0\.0\.1.*hf auth login'):
        pull(read_name('me/none'))
    pushed(published())
    monkeypatch.delenv('HF_TOKEN')
    monkeypatch.setattr(hub.constants, 'HF_TOKEN_PATH', '/none')
    with pytest.raises(CheckpointError, match='private and not yours'):
        fetch(f'hf://{NAME}')
    with pytest.raises(HubError, match='nobody is logged in'):
        find_target(read_name(NAME))


def test_without_a_network_what_was_pulled_works_and_the_rest_says_so(published, server, folder, monkeypatch):
    monkeypatch.chdir(folder)
    pushed(published())
    pull(read_name(NAME))
    with serving(HubServer()) as gone:
        nowhere = gone.endpoint
    set_endpoint(nowhere, monkeypatch)
    load_task('it', f'hf://{NAME}', f'hf://{NAME}')
    with pytest.raises(HubError, match=f'{nowhere} cannot be reached'):
        pull(read_name('me/other'))
    monkeypatch.setattr(hub.constants, 'HF_HUB_OFFLINE', True)
    load_task('it', f'hf://{NAME}', f'hf://{NAME}')
    with pytest.raises(CheckpointError, match='HF_HUB_OFFLINE'):
        fetch('hf://me/other')


def test_a_transfer_that_breaks_off_goes_on(published, server, monkeypatch, folder):
    monkeypatch.chdir(folder)
    monkeypatch.setattr('time.sleep', lambda _: None)
    pushed(published())
    server.cut = 2
    assert pull(read_name(NAME)).record['task'] == 'segmentation'
    assert server.cut == 0


def test_what_was_changed_on_the_way_is_fetched_again_and_then_refused(published, server, folder, monkeypatch):
    monkeypatch.chdir(folder)
    made = published()
    pushed(made)
    data = bytearray((made / 'adapter.safetensors').read_bytes())
    data[-3] ^= 1
    server.swap = bytes(data)
    with pytest.raises(CheckpointError, match=r'the checksum .* is another'):
        pull(read_name(NAME))
    server.swap = None
    pull(read_name(NAME))  # what is damaged in the cache does not stay there


@pytest.mark.parametrize('name', ['a/b/c', '../a', 'me/..', 'me/a b', 'hf://', 'me/a@', 'me/a@../x', '/me/a',
                                  'me/a?x', ''])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(HubError, match='no name of a model'):
        read_name(name)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(CheckpointError, match=r'pip install "mmseg_gpt\[hub\]"'):
        fetch(f'hf://{NAME}')


# --- Hostile files ---


def edit(record: dict, path: str, value: object) -> None:
    """Sets a value at a dotted path."""
    *way, last = path.split('.')
    for name in way:
        record = record[int(name)] if isinstance(record, list) else record[name]
    record[int(last) if isinstance(record, list) else last] = value


CALL = {'type': 'os.system', 'command': 'touch canary'}
HOSTILE = {
    'a function of Python': ('config.model.decode_head', CALL),
    'a function as a layer': ('config.model.decode_head.norm_cfg', {'type': 'builtins.exec', 'source': '1'}),
    'a module to import': ('config.custom_imports', {'imports': ['evil']}),
    'a base config': ('config._base_', ['http://evil/x.py']),
    'a base in the model': ('config.model._base_', 'x.py'),
    'a pickle to initialise from': ('config.model.decode_head.init_cfg', {'type': 'Pretrained', 'checkpoint': 'x.pth'}),
    'a pickle by its old name': ('config.model.pretrained', 'http://evil/x.pth'),
    'a pickle of class weights': ('config.model.decode_head.loss_decode',
                                  {'type': 'CrossEntropyLoss', 'class_weight': 'http://evil/x.pkl'}),
    'a file for a number': ('config.model.decode_head.num_classes', 'x.pkl'),
    'another reader of files': ('config.test_pipeline.0', {'type': 'LoadImageFromNDArray'}),
    'a client of files': ('config.test_pipeline.0.backend_args', {'backend': 'http'}),
    'a transform of Python': ('config.test_pipeline.1', {'type': 'Lambda', 'lambd': 'os.system'}),
    'a type that is a list': ('config.model.decode_head.type', ['LeanSETRUPHead']),
    'substitution of the environment': ('config.model.test_cfg.mode', '{{$HOME}}'),
    'a dunder': ('config.model.__class__', 1),
    'a number without end': ('config.model.backbone.img_size', 10**15),
    'a million blocks': ('config.model.backbone.arch.num_layers', 10**5),
    'a wide ViT': ('config.model.backbone.arch.embed_dims', 100_000),
    'a ViT of another width': ('config.model.backbone.arch.embed_dims', 16),
    'another number of prompts': ('config.model.backbone.prompt.num_tokens', 3),
    'not a number': ('config.model.decode_head.dropout_ratio', math.nan),
    'a missing head': ('config.model.decode_head', None),
    'a setting of no class': ('config.model.decode_head.surprise', 1),
    'no pipeline': ('config.test_pipeline', {}),
    'many views': ('config.tta_pipeline', [dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip')] * 9] * 9)]),
    'many values': ('config.model.test_cfg.stride', [1] * 6000),
    'many levels': ('config.model.test_cfg.x', json.loads('[' * 50 + ']' * 50)),
    'a terminal sequence for a class': ('classes.0', '\x1b]0;x\x07'),
    'a dict for classes': ('classes', {'0': 'a'}),
    'a long name': ('classes.0', 'x' * 1000),
    'colours beyond': ('palette.0', [0, 0, 256]),
    'a ViT in another folder': ('vit.file', '../../etc/passwd'),
    'a ViT by an absolute path': ('vit.file', '/etc/passwd'),
    'a ViT by a local address': ('vit.address', 'file:///etc/passwd'),
    'a ViT by an address without a file': ('vit.address', 'http://host/'),
    'a ViT by another scheme of timm': ('vit.address', 'timm://hf-hub:evil/x'),
    'a ViT without SHA-256': ('vit.sha256', 'x'),
    'a ViT of two dimensions': ('vit.pos_embed', ['a', 'b']),
    'results that are no numbers': ('results', {'scores': {'mIoU': 'x'}}),
    'results with a sequence': ('results', {'scores': {'\x1b[2J': 1}}),
    'a newer format': ('format', 99),
    'no format': ('format', None),
    'another task': ('task', 'detection'),
    'a list for the record': ('config', []),
}


@pytest.fixture
def good(published) -> tuple[dict, dict, Path]:
    """Record and weights of a good file, and a path for a bad one."""
    content = read_file(published() / 'adapter.safetensors')
    return copy.deepcopy(content['meta']['record']), content['state_dict'], published().parent / 'bad.safetensors'


def forge(path: Path, state: dict, text: str, digest: str | None = None) -> Path:
    """Writes a file with any text for a record, and the right checksum unless another is given."""
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, path, {RECORD: text, DIGEST: digest or digest_of(state, text)})
    return path


def assert_refused(path: Path, folder: Path) -> str:
    """Checks that every route refuses a file in words, and that nothing was written beside it."""
    before = sorted(folder.iterdir())
    with pytest.raises((ValueError, CheckpointError)) as error:
        load_task('it', str(path), path)
    with pytest.raises(SystemExit) as other:
        find_config(str(path))
    assert path.name in str(error.value) and path.name in str(other.value)
    assert sorted(folder.iterdir()) == before
    return str(error.value)


def test_no_record_does_harm(good, folder, monkeypatch):
    monkeypatch.chdir(folder)
    record, state, path = good
    forge(path, state, json.dumps(record))
    load_task('it', str(path), path)  # as it is, it is good
    for name, (place, value) in HOSTILE.items():
        bad = copy.deepcopy(record)
        edit(bad, place, value)
        said = assert_refused(forge(path, state, json.dumps(bad)), folder)
        assert 'refused' in said, name


def test_no_text_for_a_record_does_harm(good, folder, monkeypatch):
    monkeypatch.chdir(folder)
    record, state, path = good
    for text in ('', '[' * 100_000, '{"format": 1}', '"x"', '9' * 5000,
                 '{"format": 1, "config": ' + '[' * 500 + ']' * 500 + '}', json.dumps(record) + 'x',
                 json.dumps(dict(record, results=nested(400))), ' ' * (5 << 20)):
        assert_refused(forge(path, state, text), folder)


def nested(depth: int) -> dict:
    value: dict = {}
    for _ in range(depth):
        value = {'x': value}
    return value


def test_no_weights_do_harm(good, folder, monkeypatch):
    monkeypatch.chdir(folder)
    record, state, path = good
    text = json.dumps(record)
    name = next(iter(state))
    for bad, said in ((dict(state, x=torch.zeros(3)), 'unexpected'),
                      ({k: state[k] for k in state if k != name}, 'missing'),
                      (dict(state, **{name: state[name][..., :1]}), 'misshapen'),
                      (dict(state, **{name: state[name].to(torch.int32)}), 'not of its type'),
                      (dict(state, **{name: state[name] * math.nan}), 'not finite'),
                      (dict(state, **{'backbone.patch_embed.proj.bias': torch.zeros(8)}), 'unexpected')):
        assert said in assert_refused(forge(path, bad, text), folder)
    assert 'checksum' in assert_refused(forge(path, state, text, '0' * 64), folder)


def test_what_is_no_adapter_file_is_refused(good, folder, monkeypatch):
    monkeypatch.chdir(folder)
    record, _, path = good
    save_file({'x': torch.zeros(1)}, path)
    assert 'no config' in assert_refused(path, folder)
    for content in (pickle.dumps(print), b'<html>', b'', struct.pack('<Q', 2**62), b'{}',
                    (json.dumps(record)).encode()):
        path.write_bytes(content)
        assert_refused(path, folder)


def test_an_unreleased_vit_is_fetched_only_if_the_user_says_so(good, folder, server, tmp_path, monkeypatch):
    record, state, _ = good
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.chdir(tmp_path)
    server.repos['me/vit'] = Repo(False)
    server.repos['me/vit'].commit('main', {'vit.pth': (folder / 'pretrained/vit.pth').read_bytes()})
    record['vit']['address'] = f'{server.endpoint}/me/vit/resolve/main/vit.pth'
    made = tmp_path / 'made'
    forge(made / 'adapter.safetensors', state, json.dumps(record))
    pushed(made)
    server.asked.clear()
    assert '--fetch-vit' in pull(read_name(NAME)).missing
    assert not any('vit.pth' in asked for asked in server.asked)
    assert pull(read_name(NAME), vit=folder / 'pretrained/vit.pth').missing == ''
    assert pull(read_name(NAME), fetch_vit=True).missing == ''
    load_task('it', f'hf://{NAME}', f'hf://{NAME}')
    record['vit']['sha256'] = 64 * '0'
    forge(made / 'adapter.safetensors', state, json.dumps(record))
    pushed(made)
    with pytest.raises(CheckpointError, match='SHA-256'):
        pull(read_name(NAME), fetch_vit=True)


def test_what_a_config_cannot_carry_along_is_refused_when_it_is_pushed(models, tmp_path):
    cfg, checkpoint = models['segmentation']
    task = load_task('it', cfg, checkpoint)
    for place, value in (('model.decode_head.act_cfg.type', 'torch.nn.Sigmoid'),
                         ('test_dataloader.dataset.pipeline', [dict(type='mine.Transform')])):
        task.cfg = cfg.copy()
        task.cfg.merge_from_dict({place: value})
        with pytest.raises(PublishError, match='none of the classes'):
            publish(NAME, task, tmp_path)
    task.cfg, task.vit.init_cfg = cfg, dict(task.vit.init_cfg, checkpoint='nowhere/vit.pth')
    with pytest.raises(PublishError, match=r'nowhere/vit.pth does not exist.* by --vit$'):
        publish(NAME, task, tmp_path)
    with pytest.raises(NotPlain, match='somewhere'):
        check_plain(dict(model=dict(somewhere='x'), test_pipeline=[]))


def test_an_address_with_a_signature_is_not_told():
    assert is_public('https://host/vit.pth')
    for address in ('https://host/vit.pth?Signature=x', 'https://me:secret@host/vit.pth', 'https://a (a form)'):
        assert not is_public(address)


def test_an_unwritten_file_is_not_left_behind(tmp_path):
    with pytest.raises(ValueError, match='no format'):
        write_adapter(tmp_path / 'a.safetensors', {}, {})
    assert not any(tmp_path.iterdir())

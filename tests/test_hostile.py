"""Files made to do harm: on every route they raise CheckpointError, and nothing in them runs."""

import argparse
import io
import json
import pickle
import signal
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vit_files import ARCH, build, random_vit, to_jax

from mmseg_gpt.checkpoints import CheckpointError, PretrainedViT, load_vit, read_file
from mmseg_gpt.checkpoints.seal import seal
from mmseg_gpt.checkpoints.stand_ins import OLD_MMENGINE
from mmseg_gpt.convert import AS_IS, convert, describe


class Global:
    """Stands for ``module.name``, which need not exist, while a pickle is written."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *args) -> None:
        raise AssertionError('this is written, and never called here')


class Call(Global):
    """Pickled as a call: of a function by its name, or of what another call returns."""

    def __init__(self, function: 'str | Call', *args) -> None:
        self.reduced = (Global(function) if isinstance(function, str) else function), args

    def __reduce__(self) -> tuple:
        return self.reduced


class Pickler(pickle._Pickler):
    """Writes a :class:`Global` as the opcode that imports it."""

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if type(obj) is Global:
            self.write(pickle.GLOBAL + '{}\n{}\n'.format(*obj.path.rsplit('.', 1)).encode())
        else:
            super().save(obj, save_persistent_id)


def dumps(obj: object) -> bytes:
    """A pickle of protocol 2, which is torch's."""
    file = io.BytesIO()
    Pickler(file, 2).dump(obj)
    return file.getvalue()


# What torch.save takes for the module pickle.
PICKLE = SimpleNamespace(__name__='pickle', Pickler=Pickler,
                         dump=lambda obj, file, protocol=2: Pickler(file, 2).dump(obj))


def calls(canary: Path) -> dict[str, object]:
    """Objects whose unpickling makes the file ``canary``, or would import or run something, by many ways."""
    code, shell, name = f'open({str(canary)!r}, "w").close()', f'touch {canary}', str(canary)
    script = canary.with_name('script.py')
    script.write_text(code)
    module = lambda of: Call('importlib.import_module', of)  # noqa: E731
    functions = {
        'os.system': [shell], 'posix.system': [shell], 'nt.system': [shell], 'os.mkdir': [name],
        'os.execvp': ['true', ['true']],
        'builtins.eval': [code], 'builtins.exec': [code], '__builtin__.eval': [code], 'builtins.open': [name, 'w'],
        'builtins.compile': [code, 'x', 'exec'], 'builtins.__import__': ['this'], 'builtins.globals': [],
        'importlib.import_module': ['this'], 'subprocess.Popen': [['touch', name]], 'subprocess.run': [['touch', name]],
        'subprocess.check_output': [['touch', name]], 'runpy.run_path': [str(script)], 'runpy.run_module': ['this'],
        'torch.hub.load': [str(canary.parent), 'x', 'local'], 'torch.load': [str(script)], 'torch.save': [1, name],
        'torch.hub.download_url_to_file': [f'file://{script}', name], 'torch.ops.load_library': [str(script)],
        'torch.utils.cpp_extension.load_inline': ['x', code], 'codecs.open': [name, 'w'],
        'pickle.loads': [dumps(Call('os.mkdir', name))], '_pickle.loads': [dumps(Call('os.mkdir', name))],
        'numpy.load': [str(script), None, True], 'numpy.testing._private.utils.runstring': [code, {}],
        'numpy.f2py.compile': [code], 'numpy.save': [name, 1], 'numpy.ndarray.tofile': [name],
        'mmengine.config.Config.fromfile': [str(script)], 'mmengine.fileio.dump': [{}, name, 'json'],
        'mmengine.logging.history_buffer.HistoryBuffer.statistics': [code], 'shutil.copyfile': [str(script), name],
        'pathlib.Path.touch': [name], 'timeit.timeit': [code], 'pdb.run': [code], 'pty.spawn': ['true'],
        'ctypes.CDLL': [str(script)], 'webbrowser.open': [f'file://{script}'], 'asyncio.run': [code],
        'multiprocessing.util.spawnv_passfds': [b'true', [], []], 'logging.FileHandler': [name],
    }
    return {function: Call(function, *args) for function, args in functions.items()} | {
        'getattr of os': Call(Call('builtins.getattr', module('os'), 'system'), shell),
        'getattr of a stand-in': Call(Call('builtins.getattr', Global('numpy.dtype'), 'system'), shell),
        'partial': Call(Call('functools.partial', Global('os.system'), shell)),
        'methodcaller': Call(Call('operator.methodcaller', 'system', shell), module('os')),
        'map': Call('builtins.list', Call('builtins.map', Global('os.system'), [shell])),
        'apply': Call('torch._tensor._rebuild_from_type_v2', Global('os.system'), object, (shell, ), None),
        'Namespace of a call': Call('argparse.Namespace', Call('os.mkdir', name)),
    }


PLACES: dict[str, Callable[[object], object]] = {
    'alone': lambda x: x,
    'as a weight': lambda x: {**random_vit(), 'x': x},
    'in meta': lambda x: dict(state_dict=random_vit(), meta=x),
    'in a Namespace': lambda x: dict(model=random_vit(), args=argparse.Namespace(x=x)),
    'nested': lambda x: dict(model=OrderedDict(random_vit(), a=OrderedDict(b=[(x, )]))),
    'as a key': lambda x: {**random_vit(), (x, ): 1},
}


def write_zip(content: object, path: Path) -> None:
    torch.save(content, path, pickle_module=PICKLE)


def write_legacy(content: object, path: Path) -> None:
    torch.save(content, path, pickle_module=PICKLE, _use_new_zipfile_serialization=False)


def write_sealed(content: object, path: Path) -> None:
    write_zip(content, path)
    seal(path)


def write_tar(content: object, path: Path) -> None:
    """torch's format of 2016."""
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            data = dumps(content if name == 'pickle' else 0)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


WRITERS = {'zip': write_zip, 'legacy': write_legacy, 'tar': write_tar, 'sealed': write_sealed}


def assert_harmless(path: Path, canary: Path, is_data: bool = False) -> None:
    """No route runs anything; each raises CheckpointError, unless the file may be read as data (``is_data``)."""
    target = canary.with_name('converted.pth')
    routes: dict[str, Callable[[], object]] = {
        'read_file': lambda: read_file(path),
        'PretrainedViT': lambda: build(init_cfg=dict(type='PretrainedViT', checkpoint=str(path))).init_weights(),
        'list': lambda: describe(path),
        'convert': lambda: convert(path, target, 'timm', force=True),
        'convert whole': lambda: convert(path, target, AS_IS, force=True),
    }
    for name, route in routes.items():
        try:
            route()
        except CheckpointError as error:
            assert path.name in str(error)
        else:
            assert is_data, f'{name} accepted {path}'
        assert not canary.exists(), name
    assert is_data or not target.exists()


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / 'canary'


def test_no_call_is_made_by_any_function(canary, record_property):
    # torch.hub.load and others would need more than these arguments: it is their name that is refused.
    hostile = calls(canary)
    for name, call in hostile.items():
        path = canary.with_name(f'{name.replace(" ", "_")}.pth')
        write_zip(PLACES['as a weight'](call), path)
        assert_harmless(path, canary)
    assert len(hostile) >= 50
    record_property('hostile calls', len(hostile))


@pytest.mark.parametrize('name', ['os.mkdir', 'os.system', 'builtins.eval', 'builtins.exec', 'pickle.loads',
                                  'getattr of os', 'subprocess.run', 'runpy.run_path', 'codecs.open', 'torch.save'])
def test_these_files_are_really_dangerous(name, canary):
    pickle.loads(dumps(calls(canary)[name]))
    assert canary.exists()


@pytest.mark.parametrize('writer', ['zip', 'legacy', 'sealed'])
def test_without_a_call_these_files_are_good(writer, tmp_path):
    WRITERS[writer](PLACES['in a Namespace'](1), tmp_path / 'vit.pth')
    load_vit(build(), tmp_path / 'vit.pth')


@pytest.mark.parametrize('environment', [{}, {'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD': '1'}])
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('writer', WRITERS)
def test_no_call_is_made_wherever_it_stands(writer, place, environment, canary, monkeypatch):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    for name in ('os.mkdir', 'builtins.eval', 'getattr of os'):
        path = canary.with_name(f'{name}.bin')
        WRITERS[writer](PLACES[place](calls(canary)[name]), path)
        assert_harmless(path, canary)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.pkl', '.safetensors', '.npz', '.PTH', ''])
def test_a_bare_pickle_is_refused_whatever_its_suffix(suffix, canary):
    path = canary.with_name(f'vit{suffix}')
    path.write_bytes(dumps(calls(canary)['os.mkdir']))
    assert_harmless(path, canary)


def test_what_stands_for_mmengines_objects_cannot_be_called(canary):
    """The converter reads these names; none of them is what it is called, and what they return is nothing to call."""
    for name in OLD_MMENGINE:
        path = canary.with_name(f'{name}.pth')
        write_zip(PLACES['in meta'](Call(Call(name, Global('numpy.ndarray'), 'system'), f'touch {canary}')), path)
        assert_harmless(path, canary)
        write_zip(PLACES['in meta'](Call(name, {'x': 1}, 'system')), path)
        with pytest.raises(CheckpointError):
            read_file(path)
        convert(path, canary.with_name('out.pth'), 'timm', force=True)
        assert not canary.exists()
        load_vit(build(), canary.with_name('out.pth'))


# --- Not by a pickle ---


def zip_of(path: Path, *parts: tuple[str, bytes], deflate: bool = False) -> None:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for name, data in parts:
            archive.writestr(name, data)


def npy(header: str, data: bytes = b'') -> bytes:
    """An array file with any text for a header."""
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode() + data


def persistent(pid: object) -> bytes:
    """A pickle of {'w': what the loader makes of this persistent id}."""
    return b'\x80\x02}X\x01\x00\x00\x00w' + dumps(pid)[2:-1] + b'Qs.'


def torch_zip(pickled: bytes, storage: bytes = bytes(64)) -> tuple[tuple[str, bytes], ...]:
    return ('vit/data.pkl', pickled), ('vit/byteorder', b'little'), ('vit/data/0', storage), ('vit/version', b'3\n')


def safetensors(header: object, data: bytes = b'', length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def tensor_claiming(count: int) -> bytes:
    """A pickle of a tensor of ``count`` numbers whose storage has 16."""
    file = io.BytesIO()
    torch.save(dict(w=torch.ones(16)), file)
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith('data.pkl')))
    claim = b'J' + struct.pack('<i', count)
    return pickled.replace(b'K\x10t', claim + b't').replace(b'K\x10\x85', claim + b'\x85')


FILES: dict[str, Callable[[Path], tuple[str, bytes | tuple]]] = {
    'html': lambda c: ('.pth', b'<!DOCTYPE html><script>alert(1)</script>'),
    'html as safetensors': lambda c: ('.safetensors', b'<!DOCTYPE html><html></html>'),
    'a bomb in the weights': lambda c: ('.pth', torch_zip(dumps({}), bytes(50_000_000))),
    'a bomb beside the weights': lambda c: ('.pth', (*torch_zip(dumps({})), ('vit/x', bytes(50_000_000)))),
    'a bomb of arrays': lambda c: ('.npz', (('cls.npy', npy(
        "{'descr': '|u1', 'fortran_order': False, 'shape': (50000000,)}", bytes(50_000_000))), )),
    'an array of a terabyte': lambda c: ('.npz', (('cls.npy', npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")), )),
    'an array with code for a header': lambda c: ('.npz', (('cls.npy', npy(
        f'__import__("os").system("touch {c}")')), )),
    'an array of objects': lambda c: ('.npz', (('cls.npy', npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", dumps([Call('os.mkdir', str(c))]))), )),
    'a pickle for an array': lambda c: ('.npz', (('cls.npy', dumps(Call('os.mkdir', str(c)))), )),
    'arrays above the folder': lambda c: ('.npz', ((f'../../{c.name}.npy', b'x'), (f'{c}.npy', b'x'))),
    'parts above the folder': lambda c: ('.pth', ((f'../{c.name}', b'x'), (str(c), b'x'), *torch_zip(dumps({})))),
    'a module for a persistent id': lambda c: ('.pth', torch_zip(persistent(('module', 'os', 'x.py', 'import os')))),
    'a text for a persistent id': lambda c: ('.pth', torch_zip(persistent('os.system'))),
    'a storage above the folder': lambda c: ('.pth', torch_zip(persistent(
        ('storage', Global('torch.FloatStorage'), '../../../etc/passwd', 'cpu', 16)))),
    'a storage on another device': lambda c: ('.pth', torch_zip(persistent(
        ('storage', Global('torch.FloatStorage'), '0', f'touch {c}', 16)))),
    'a call for a storage': lambda c: ('.pth', torch_zip(persistent(
        ('storage', Call('os.mkdir', str(c)), '0', 'cpu', 16)))),
    'a tensor larger than its storage': lambda c: ('.pth', torch_zip(tensor_claiming(2**30))),
    'a tensor of negative size': lambda c: ('.pth', torch_zip(tensor_claiming(-5))),
    'TorchScript': lambda c: ('.pth', (
        *torch_zip(dumps({})), ('vit/constants.pkl', dumps(())), ('vit/code/x.py', b'1'))),
    'a thousand million lists': lambda c: ('.pth', torch_zip(dumps({'x': nested(30)}))),
    'lists a hundred thousand deep': lambda c: ('.pth', torch_zip(
        b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.')),
    'a bytearray of a terabyte': lambda c: ('.pth', torch_zip(dumps({'x': Call('builtins.bytearray', 10**12)}))),
    'a tensor of a petabyte': lambda c: ('.pth', torch_zip(dumps({'x': Call('torch.FloatTensor', 10**15)}))),
    'a pickle that ends early': lambda c: ('.pth', torch_zip(dumps({'x': 1})[:-3])),
    'no pickle at all': lambda c: ('.pth', torch_zip(b'')),
    'safetensors with a huge header': lambda c: ('.safetensors', safetensors({}, length=2**62)),
    'safetensors of a petabyte': lambda c: ('.safetensors', safetensors(
        {'w': dict(dtype='F32', shape=[2**48], data_offsets=[0, 2**50])})),
    'safetensors that overlap': lambda c: ('.safetensors', safetensors(
        {k: dict(dtype='F32', shape=[4], data_offsets=[0, 16]) for k in 'ab'}, bytes(16))),
    'safetensors of negative size': lambda c: ('.safetensors', safetensors(
        {'w': dict(dtype='F32', shape=[-4], data_offsets=[0, 16])}, bytes(16))),
    'a pickle for safetensors': lambda c: ('.safetensors', dumps(Call('os.mkdir', str(c)))),
}


# What read_file gives to who asks, because it is no harm as such; none of them holds a ViT.
ONLY_DATA = ('a thousand million lists', 'lists a hundred thousand deep', 'a storage on another device')


def nested(depth: int) -> list:
    """Lists of the same list twice: small in a file, and endless for who walks through it."""
    value: list = []
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize('name', FILES)
def test_no_file_does_harm(name, canary):
    suffix, content = FILES[name](canary)
    path = canary.with_name(f'vit{suffix}')
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        zip_of(path, *content, deflate='bomb' in name)
    signal.alarm(300)  # a walk without end is harm too, and ends the tests here
    try:
        assert_harmless(path, canary, is_data=name in ONLY_DATA)
    finally:
        signal.alarm(0)
    assert not [p for p in canary.parents[1].glob('canary*')]


def test_a_symbolic_link_to_nowhere_is_no_file(tmp_path):
    (tmp_path / 'vit.pth').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError):
        PretrainedViT(str(tmp_path / 'vit.pth'))(build())


def test_lists_without_end_beside_good_weights_are_not_walked_through(tmp_path):
    state = random_vit()
    meta = dict(dataset_meta=dict(classes=nested(40), palette=nested(40)))
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'a.pth')
    assert convert(tmp_path / 'a.pth', tmp_path / 'b.pth', AS_IS) == len(state)
    assert 'dataset_meta' not in read_file(tmp_path / 'b.pth')['meta']


def test_objects_in_arrays_beside_good_ones_are_refused(canary):
    arrays = to_jax(random_vit(arch=ARCH))
    np.savez(canary.with_name('vit.npz'), **arrays, extra=np.array([{1: 2}], dtype=object))
    assert_harmless(canary.with_name('vit.npz'), canary)

"""ONNX: a program as a file, in half precision or with weights of 8 bits, and its runs by onnxruntime."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

INPUT, LOGITS = 'images', 'logits'
LARGEST = 2**31 - 2**20  # bytes of a file without external data, a limit of protobuf


def needed(*modules: str) -> list[ModuleType]:
    """Imports packages of the extra ``export``.

    Raises:
        ValueError: one of them is not installed.
    """
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise ValueError(f'ONNX needs onnx, onnxruntime and onnxscript ({error}): pip install "mmseg_gpt[export]"'
                         ) from error


def as_onnx(program: ExportedProgram, outputs: Sequence[str], open_sides: dict[int, str]) -> 'ModelProto':
    """Translates an exported program.

    Args:
        program: The program.
        outputs: Names of its outputs.
        open_sides: Names of the open axes of the images.

    Raises:
        ValueError: a package is missing, or the weights are too large for a file.
    """
    needed('onnx', 'onnxscript')
    size = sum(weight.nbytes for weight in program.state_dict.values())
    if size > LARGEST:
        raise ValueError(f'the weights take {size / 2**30:.1f} GiB, and an ONNX file holds 2 at most: write a .pt2')
    model = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[INPUT],
                              output_names=list(outputs)).model_proto
    # torch's own names of open axes mean nothing to a user, and other axes are known.
    (images, ) = model.graph.input
    for axis, name in open_sides.items():
        images.type.tensor_type.shape.dim[axis].dim_param = name
    for output in model.graph.output:
        dims = output.type.tensor_type.shape.dim
        sides = [dim for dim in dims if dim.dim_param]
        for dim, name in zip(sides, open_sides.values()):
            dim.dim_param = name
    del model.graph.value_info[:]
    return model


def halved(model: 'ModelProto') -> 'ModelProto':
    """Returns a model that computes in float16; images and outputs keep their types."""
    (float16, ) = needed('onnxruntime.transformers.float16')
    return float16.convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)


def with_int8_weights(model: 'ModelProto') -> 'ModelProto':
    """Returns a model whose linear layers have weights of 8 bits, which are multiplied back in blocks of 32.

    Raises:
        ValueError: no layer could be changed.
    """
    (quantizer, ) = needed('onnxruntime.quantization.matmul_nbits_quantizer')
    work = quantizer.MatMulNBitsQuantizer(model, bits=8, block_size=32, is_symmetric=True)
    work.process()
    model = work.model.model
    if not any(node.op_type == 'MatMulNBits' for node in model.graph.node):
        raise ValueError('--int8: the model has no linear layer whose weights can be quantised')
    return model


def note(model: 'ModelProto', notes: dict[str, str]) -> None:
    """Writes texts into a model, under names that onnxruntime's ``get_modelmeta().custom_metadata_map`` returns."""
    for name, text in notes.items():
        model.metadata_props.add(key=name, value=text)


def without_logits(model: 'ModelProto') -> None:
    """Takes the logits out of the outputs of a model that has another one; they are computed as before."""
    if len(model.graph.output) > 1:
        del model.graph.output[[output.name for output in model.graph.output].index(LOGITS)]


def session_of(model: 'ModelProto | Path', with_logits: bool = False) -> 'InferenceSession':
    """Makes onnxruntime's session of a model or a file, on the CPU.

    Args:
        model: The model, or its file.
        with_logits: Whether logits are among the outputs, also of a file that does not give them.

    Raises:
        ValueError: onnxruntime is missing.
    """
    onnx, runtime = needed('onnx', 'onnxruntime')
    model = onnx.load(model) if isinstance(model, Path) else model
    if with_logits and LOGITS not in [output.name for output in model.graph.output]:
        model.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, None))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def run(session: 'InferenceSession', images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a batch; returns the outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: images})))

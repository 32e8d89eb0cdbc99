"""A training step recorded once as a CUDA graph and replayed, which asks the CPU for one launch in the place of many.

Forward, loss and backward are recorded. Reading and normalising images, clipping, loss scaling's decision and the
optimizer's step are not: learning rates change, and what is not finite must be seen before weights are touched.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .optimizer import accumulated_iterations

WARM_UP = 3  # iterations before the recording, in which kernels are chosen and compiled
Outcome = tuple[list[Tensor | None], dict[str, Tensor]]  # gradients of the trained parameters, and the losses


class CudaGraph:
    """What a function does on the GPU, recorded; nothing of it has run yet.

    Args:
        work: The function. Its tensors must be the same ones in every run.

    Attributes:
        outcome: What ``work`` returned. :meth:`replay` fills its tensors.

    Raises:
        RuntimeError: something in ``work`` cannot be recorded, such as waiting for the GPU.
    """

    def __init__(self, work: Callable[[], Outcome]) -> None:
        self.graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        seed, offset = generator.initial_seed(), generator.get_offset()
        try:
            # Other threads, such as the one that pins batches, may go on using the GPU meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode='thread_local'):
                self.outcome = work()
        except RuntimeError as error:
            # The generator goes on believing that it is recorded: it gets the state of another one.
            fresh = torch.Generator(generator.device).manual_seed(seed)
            fresh.set_offset(offset)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
            raise error.__context__ or error from None  # the end of a recording that failed fails too

    def replay(self) -> None:
        """Runs it on what its tensors hold now."""
        self.graph.replay()


class GraphedStep:
    """The ``train_step`` of a model, by a graph where that gives the same numbers, and else as usual.

    The first iterations run as usual. Then one is recorded, on tensors that batches are copied into, and from then on
    replayed. Random numbers are those of the usual step. A batch of other sizes, as the last of an epoch may be, goes
    the usual way. Where weights have moved to other memory, as after a validation under ``--amp``, it is recorded anew.
    If it cannot be recorded, the log says why and all goes on as usual.

    Args:
        model: The model.
        record: Makes a graph of a function, see :class:`CudaGraph`.
        warm_up: The number of usual iterations before the recording.
    """

    def __init__(self, model: BaseModel, record: Callable[[Callable[[], Outcome]], CudaGraph] = CudaGraph,
                 warm_up: int = WARM_UP) -> None:
        self.model, self.record, self.warm_up = model, record, warm_up
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.graph: CudaGraph | None = None
        self.static: dict = {}  # the batch that the graph reads
        self.places: list[int] = []
        self.others: set[tuple] = set()  # sizes of batches that went the usual way
        self.stream: torch.cuda.Stream | None = None

    def __call__(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Makes an iteration; arguments and result are those of ``BaseModel.train_step``."""
        with optim_wrapper.optim_context(self.model):
            data = self.model.data_preprocessor(data, True)
        if self.warm_up:
            self.warm_up -= 1
            with self.aside():
                return self.usual(data, optim_wrapper)
        if self.graph is not None and self.places != places_of(self.model):
            self.forget()
        if self.graph is None and self.record is not None:
            self.try_to_record(data, optim_wrapper)
        if self.graph is None or not self.fits(data):
            return self.usual(data, optim_wrapper)
        return self.replayed(data, optim_wrapper)

    def usual(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Makes an iteration of a normalised batch as ``BaseModel.train_step`` does."""
        loss, losses = self.loss(data, optim_wrapper)
        optim_wrapper.update_params(loss)
        return losses

    def loss(self, data: dict, optim_wrapper: OptimWrapper) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum of the losses of a normalised batch, and all that is to be logged."""
        with optim_wrapper.optim_context(self.model):
            losses = self.model._run_forward(data, mode='loss')
        return self.model.parse_losses(losses)

    def try_to_record(self, data: dict, optim_wrapper: OptimWrapper) -> None:
        """Records an iteration of batches like ``data``, or says why it cannot be recorded."""
        done = optim_wrapper._inner_count
        self.static = data

        def work() -> Outcome:
            for parameter in self.trained:
                parameter.grad = None  # so that the graph makes gradients instead of adding to some
            loss, losses = self.loss(data, optim_wrapper)
            optim_wrapper.backward(optim_wrapper.scale_loss(loss))
            return [p.grad for p in self.trained], dict(losses)  # hooks turn those of an iteration into numbers

        try:
            self.graph = self.record(work)
            self.places = places_of(self.model)
            print_log(f'the training step of {in_words(data)} is replayed as a CUDA graph from here on',
                      logger='current')
        except RuntimeError as error:
            self.forget()
            self.record = None
            print_log('the training step cannot be recorded as a CUDA graph, and goes on without: '
                      f'{str(error).strip().splitlines()[0]}', logger='current', level=logging.WARNING)
        finally:
            optim_wrapper._inner_count = done
            for parameter in self.trained:
                parameter.grad = None

    def replayed(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Makes an iteration of a normalised batch by the graph, and the optimizer's step as ``update_params`` does."""
        for (_, room), (_, values) in zip(tensors_of(self.static), tensors_of(data)):
            if room is not values:
                room.copy_(values)
        self.graph.replay()
        gradients, losses = self.graph.outcome
        for parameter, gradient in zip(self.trained, gradients):
            parameter.grad = gradient
        optim_wrapper._inner_count += 1
        if optim_wrapper.should_update():
            optim_wrapper.step()
            optim_wrapper.zero_grad()
        return dict(losses)

    def fits(self, data: dict) -> bool:
        """Returns whether the graph takes a batch, and says of each other size once that it does not."""
        sizes = sizes_of(data)
        if sizes == sizes_of(self.static):
            return True
        if sizes not in self.others:
            self.others.add(sizes)
            print_log(f'a batch of {in_words(data)} is not of the sizes of the CUDA graph, {in_words(self.static)}: it '
                      'is computed without', logger='current')
        return False

    def forget(self) -> None:
        """Drops the graph and its memory."""
        self.graph, self.static, self.places = None, {}, []
        gc.collect()

    def aside(self) -> AbstractContextManager:
        """Returns a context in which the GPU works on a stream of its own, as torch asks of runs before a recording."""
        if next(self.model.parameters()).device.type != 'cuda':
            return nullcontext()
        self.stream = self.stream or torch.cuda.Stream()
        return on_stream(self.stream)


class on_stream(AbstractContextManager):
    """A context in which the GPU works on a stream, after what came before and before what comes after.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream, self.context = stream, torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        self.context.__enter__()

    def __exit__(self, *error: object) -> None:
        self.context.__exit__(*error)
        torch.cuda.current_stream().wait_stream(self.stream)


def why_not_graphed(model: nn.Module, wrapper: OptimWrapper | OptimWrapperDict, distributed: bool) -> str | None:
    """Says why the training step of a run cannot be replayed as a CUDA graph; None if nothing is known against it."""
    device = next(model.parameters()).device.type
    if device != 'cuda':
        return f'the model is on the device "{device}", and only CUDA has such graphs'
    if distributed:
        return 'several processes exchange gradients during the backward'
    if isinstance(wrapper, OptimWrapperDict):
        return 'there are several optimizers'
    if accumulated_iterations(wrapper) > 1:
        return 'gradients are accumulated over iterations'
    if getattr(type(model), 'train_step', None) is not BaseModel.train_step or 'train_step' in vars(model):
        return f'{type(model).__name__} has a train_step of its own'
    return None


def tensors_of(data: object, path: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yields all tensors of a batch in a fixed order, each with its place: of dicts, lists and data samples."""
    if isinstance(data, Tensor):
        yield path, data
    elif isinstance(data, dict):
        for name in sorted(data):
            yield from tensors_of(data[name], f'{path}.{name}')
    elif isinstance(data, (list, tuple)):
        for i, each in enumerate(data):
            yield from tensors_of(each, f'{path}.{i}')
    elif isinstance(data, BaseDataElement):
        yield from tensors_of(dict(data.items()), path)


def sizes_of(data: dict) -> tuple:
    """Returns places, shapes and types of all tensors of a batch."""
    return tuple((path, tensor.shape, tensor.dtype) for path, tensor in tensors_of(data))


def in_words(data: dict) -> str:
    """Returns the shapes of the tensors of a batch, each once."""
    return ' and '.join(dict.fromkeys('x'.join(map(str, tensor.shape)) or '1' for _, tensor in tensors_of(data)))


def places_of(model: nn.Module) -> list[int]:
    """Returns where parameters and buffers lie in memory."""
    return [tensor.data_ptr() for tensors in (model.parameters(), model.buffers()) for tensor in tensors]

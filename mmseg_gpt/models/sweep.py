"""Several heads that train on the features of one frozen ViT at the same time, each as if it were alone.

Source: the linear evaluations of DINOv2 and DINOv3 (arXiv 2304.07193, 2508.10104) train a grid of heads so.
"""

import copy
import math
import random
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..settings import changed
from .gated_prompt_vit import GatedPromptViT


@MODELS.register_module()
class SweepModel(BaseModel):
    """Segmentors or classifiers that share a frozen ViT, which each image goes through once.

    Each member is a whole model of its own class without the ViT: head, auxiliary heads, neck and statistics of batch
    norm. It has its own optimizer, and draws the same initial weights and dropout as it would alone. So it ends as a
    separate run would, bit for bit; only if the heads differ in shape, their initial weights differ. A member whose
    loss or gradient is not finite stops training.

    Args:
        model: Settings of a model whose backbone is a frozen GatedPromptViT that trains nothing.
        heads: For the name of each member, the settings in which it differs: values by dotted paths.
        data_preprocessor: Settings of the preprocessor, if ``model`` has none.

    Attributes:
        names: Names of the members.
        members: The models, in the order of their names.
        backbone: The ViT.
        diverged: Number of the iteration, from 1, in which the loss of a member was not finite, by its name.

    Raises:
        ValueError: the backbone is trained in some way, or cannot be shared.
    """

    checks_gradients = True  # is asked by NonFiniteHook

    def __init__(self, model: dict, heads: dict[str, dict], data_preprocessor: dict | None = None) -> None:
        super().__init__()
        self.names = list(heads)
        self.members = nn.ModuleList()
        self.diverged: dict[str, int] = {}
        drawn, built = Generators(), {}
        for changes in heads.values():
            settings = changed(dict(model), changes)
            if data_preprocessor is not None:
                settings.setdefault('data_preprocessor', copy.deepcopy(data_preprocessor))
            key = repr(sorted(changes.items()))
            if key not in built:
                drawn.put_back()
                member = MODELS.build(settings)
                if not built:
                    self.backbone = sharable(member.backbone)
                    self.shared = SharedViT(self.backbone)
                member.backbone = self.shared
                built[key] = member
            self.members.append(copy.deepcopy(built[key], {id(self.shared): self.shared}))
        self.data_preprocessor = self.members[0].data_preprocessor

    def member(self, name: str) -> BaseModel:
        """Returns the member of this name."""
        return self.members[self.names.index(name)]

    def init_weights(self) -> None:
        """Initialises every member from the same random numbers, and the ViT once."""
        drawn = Generators()
        for member in self.members:
            drawn.put_back()
            member.init_weights()

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Makes a step with each member, after the backward of all, so that the device is waited for once.

        Args:
            data: A batch.
            optim_wrapper: The optimizers by the names of the members.

        Returns:
            dict: ``loss``, the sum of all; and what each member reports, as ``NAME/loss``.
        """
        alive = [name for name in self.names if name not in self.diverged]
        losses, logs = {}, {}
        with optim_wrapper[self.names[0]].optim_context(self):
            data = self.data_preprocessor(data, True)
        self.shared.forget()
        drawn = Generators()
        for name in alive:
            member, wrapper = self.member(name), optim_wrapper[name]
            drawn.put_back()
            self.shared.rewind()
            with wrapper.optim_context(member):
                found = member._run_forward(data, mode='loss')
            losses[name], logs[name] = member.parse_losses(found)
            wrapper.backward(wrapper.scale_loss(losses[name]))
        for name in not_finite(losses, optim_wrapper):
            self.diverged[name] = MessageHub.get_current_instance().get_info('iter', 0) + 1
            optim_wrapper[name].zero_grad()
            make_finite(self.member(name))  # so that the others can be saved
            del losses[name], logs[name]
        for name in losses:
            if optim_wrapper[name].should_update():
                optim_wrapper[name].step()
                optim_wrapper[name].zero_grad()
        self.shared.forget()
        total = torch.as_tensor(sum((loss.detach() for loss in losses.values()), 0.))
        return dict(loss=total, **{f'{name}/{key}': value for name, log in logs.items() for key, value in log.items()})

    def val_step(self, data: dict) -> 'SweptSamples':
        """Lets each member predict a batch; returns the predictions of the first, with those of all beside them."""
        self.shared.forget()
        by_name = {}
        for name in self.names:
            if name not in self.diverged:
                self.shared.rewind()
                samples = copy.deepcopy(data['data_samples'])  # predictions are added to them
                by_name[name] = self.member(name).val_step(dict(data, data_samples=samples))
        self.shared.forget()
        return SweptSamples(by_name)

    def test_step(self, data: dict) -> list[BaseDataElement]:
        """Refuses: a test has one model.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError('a sweep of heads is not tested as a whole: test best_head.pth with best_head.py')

    def forward(self, *_, **__) -> None:
        """Refuses: each member has a forward of its own.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError('a sweep of heads has no forward of its own: its members have')


def sharable(backbone: nn.Module) -> GatedPromptViT:
    """Returns a backbone that several heads can share, as it stays as it is.

    Raises:
        ValueError: it trains something, or is no GatedPromptViT.
    """
    if not isinstance(backbone, GatedPromptViT):
        raise ValueError(f'heads are swept on a GatedPromptViT, not on a {type(backbone).__name__}')
    trained = [name for name, weight in backbone.named_parameters() if weight.requires_grad]
    if trained:
        raise ValueError('heads can only be swept on a ViT that trains nothing, and this one trains '
                         f'{len(trained)} of its tensors ({trained[0]}{", ..." if len(trained) > 1 else ""}). Take a '
                         'config in which only the heads are trained')
    return backbone


@torch.no_grad()
def not_finite(losses: dict[str, Tensor], wrappers: Mapping[str, OptimWrapper]) -> list[str]:
    """Returns the names of losses that are not finite, or whose gradients are not where a step is due.

    The device is waited for once. Where losses are scaled, as in float16, such steps now and then are normal, and the
    scaler skips them.

    Args:
        losses: The losses, after their backward.
        wrappers: The optimizers that are to make the steps, by the same names.
    """
    gradients = {}
    for name in losses:
        scaler = getattr(wrappers[name], 'loss_scaler', None)
        if scaler is None or not scaler.is_enabled():
            groups = wrappers[name].optimizer.param_groups if wrappers[name].should_update() else []
            gradients[name] = [p.grad for group in groups for p in group['params'] if p.grad is not None]
    if not gradients:
        return []
    norms = [nn.utils.get_total_norm(each) if each else losses[name].new_zeros(()) for name, each in gradients.items()]
    together = torch.stack([*(losses[name].float() for name in gradients), *(norm.float() for norm in norms)])
    numbers = zip(*torch.unflatten(together, 0, (2, -1)).tolist())
    return [name for (name, each), (loss, norm) in zip(gradients.items(), numbers) if not math.isfinite(loss) or (
        not math.isfinite(norm) and not all(gradient.isfinite().all() for gradient in each))]


@torch.no_grad()
def make_finite(model: nn.Module) -> None:
    """Replaces what is not a finite number in weights and buffers: NaN by 0, infinities by the largest numbers."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.nan_to_num_()


class SweptSamples(list):
    """The predictions of the first member that goes on, in a list; ``by_name`` has those of all."""

    def __init__(self, by_name: dict[str, list[BaseDataElement]]) -> None:
        super().__init__(next(iter(by_name.values()), []))
        self.by_name = by_name


class SharedViT(nn.Module):
    """A ViT in the place of the members' own, which remembers what it has answered since :meth:`forget`.

    Members ask for the same images in the same order: the windows of one image after another. All but the first get
    answers that are there. They are compared by their pixels, so that no member can get those of another image.

    Args:
        vit: The ViT. It is no submodule of this one, so that it is saved once.
    """

    def __init__(self, vit: GatedPromptViT) -> None:
        super().__init__()
        self._vit = (vit, )
        self.forget()

    @property
    def is_init(self) -> bool:
        """Whether the ViT is initialised."""
        return self._vit[0].is_init

    def init_weights(self) -> None:
        """Loads the pretrained ViT."""
        self._vit[0].init_weights()

    def forget(self) -> None:
        """Forgets all images."""
        self.known: list[tuple[Tensor, tuple[Tensor, ...], list[int]]] = []
        self.rewind()

    def rewind(self) -> None:
        """Begins with the first image again, for the next member.

        Raises:
            RuntimeError: a member has changed the features that it was given.
        """
        if any([output._version for output in outputs] != versions for _, outputs, versions in self.known):
            raise RuntimeError('a head writes into the features that it is given, so that it cannot share them in a '
                               'sweep')
        self.place = 0

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the features of images (B, C, H, W), as :meth:`GatedPromptViT.forward`."""
        place, self.place = self.place, self.place + 1
        if place < len(self.known):
            known, outputs, _ = self.known[place]
            if known is images or torch.equal(known, images):
                return outputs
        outputs = self._vit[0](images)
        if place == len(self.known):
            self.known.append((images, outputs, [output._version for output in outputs]))
        return outputs


class Generators:
    """The states of all random generators, to draw the same numbers again."""

    def __init__(self) -> None:
        self.states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def put_back(self) -> None:
        """Sets the generators to these states."""
        for put, state in zip((random.setstate, np.random.set_state, torch.set_rng_state), self.states):
            put(state)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)

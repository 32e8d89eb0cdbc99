"""The table of methods: what each one trains of a pretrained ViT, and its name.

Experiments, suites, tables, figures and the paper in miniature read it. A new method is what
:class:`mmseg_gpt.models.GatedPromptViT` can do, a row here and a test.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ..settings import type_name

# Older names of the backbone, by the options that show what they train. They decide themselves that the ViT is frozen.
FORMER = dict(LoRAViT=dict(lora={}, frozen=True), BiasTunedViT=dict(biases=True, frozen=True))


class Method(NamedTuple):
    """How a method adapts a ViT.

    Attributes:
        title: The name in tables and figures.
        prompt: The type of the prompts; empty for none.
        gates: Whether the prompts have gates, which start at a prior.
        hard: Whether a gate is either open or closed.
        each_block: Whether each block has prompts of its own.
        temperature: Whether each block learns the temperature of its attention.
        lora: Options of low-rank updates; None for none.
        biases: Whether an update of each bias is learnt.
        adapter: Options of bottlenecks beside the MLPs; None for none.
        frozen: Whether the pretrained weights stay as they are, so that checkpoints need not hold them.
        adapts: Whether it adapts the ViT with few parameters: neither none nor all of it is trained.
        ade20k: The name in the files ``configs/setr_pup_NAME_VIT_ade20k.py``, where it is another one.
    """
    title: str
    prompt: str = ''
    gates: bool = False
    hard: bool = False
    each_block: bool = False
    temperature: bool = False
    lora: Mapping[str, object] | None = None
    biases: bool = False
    adapter: Mapping[str, object] | None = None
    frozen: bool = True
    adapts: bool = True
    ade20k: str = ''


METHODS = {
    'gpt': Method('Gated Prompt Tuning', 'GatedPrompt', gates=True, temperature=True),
    'gates-only': Method('VPT-shallow + gates', 'GatedPrompt', gates=True),
    'temperatures-only': Method('VPT-shallow + temperatures', 'ShallowPrompt', temperature=True),
    'hard-gates': Method('Gated Prompt Tuning (hard gates)', 'HardGatedPrompt', gates=True, hard=True,
                         temperature=True),
    'vpt-shallow': Method('VPT-shallow', 'ShallowPrompt'),
    'vpt-deep': Method('VPT-deep', 'DeepPrompt', each_block=True),
    'temperatures': Method('Temperatures without prompts', temperature=True),
    'bias': Method('Biases only', biases=True),
    'lora': Method('LoRA', lora=dict(rank=4)),
    'lora-gpt': Method('Gated Prompt Tuning + LoRA', 'GatedPrompt', gates=True, temperature=True, lora=dict(rank=4)),
    'adaptformer': Method('AdaptFormer', adapter=dict(width=64)),
    # Named after what is trained: in classification a linear layer, in segmentation the heads.
    'linear': Method('Heads only', adapts=False, ade20k='head-only'),
    'full': Method('Full fine-tuning', frozen=False, adapts=False),
}


def options(method: str, prompts: int, gate_init: float) -> dict:
    """Returns the settings of a backbone that decide a method; what is left out is the backbone's default.

    Args:
        method: One of ``METHODS``.
        prompts: How many there are; with ``each_block``, in each block.
        gate_init: How far below 0 the gates' prior is.
    """
    row = METHODS[method]
    prompt = dict(type=row.prompt, num_tokens=prompts) if row.prompt else None
    if row.gates:
        prompt['gate_init'] = float(gate_init)
    chosen = dict(temperature=row.temperature, lora=row.lora and dict(row.lora), biases=row.biases,
                  adapter=row.adapter and dict(row.adapter))
    return dict(prompt=prompt, **{name: value for name, value in chosen.items() if value},
                **({} if row.frozen else dict(frozen=False)))


def tokens_per_set(method: str, prompts: int, blocks: int) -> int:
    """Returns ``prompts // blocks`` where each block has prompts of its own, else ``prompts``."""
    return prompts // blocks if METHODS[method].each_block else prompts


def method_of(backbone: Mapping) -> str:
    """Returns the name of the method that a backbone's settings show, or else a description."""
    backbone = {**backbone, **FORMER.get(type_name(backbone), {})}
    prompt = type_name(backbone.get('prompt') or {})
    temperature = backbone.get('temperature', False) is not False  # {} means temperatures as they are by default
    lora, adapter = (backbone.get(name) is not None for name in ('lora', 'adapter'))  # here too
    biases, frozen = backbone.get('biases', False), backbone.get('frozen', True)
    for name, row in METHODS.items():
        if (prompt, temperature, lora, biases, adapter, frozen) == (
                row.prompt, row.temperature, row.lora is not None, row.biases, row.adapter is not None, row.frozen):
            return name
    if not frozen:
        return 'full with prompts or temperatures'
    found = [prompt, 'temperatures' * temperature, 'LoRA' * lora, 'biases' * biases, 'bottlenecks' * adapter]
    return ' and '.join(filter(None, found))

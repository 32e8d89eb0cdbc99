"""The table of methods: what each one trains of a pretrained ViT, and its name.

Experiments, suites, tables, figures and the paper in miniature read it. A new method is a class in
:mod:`mmseg_gpt.models`, a row here and a test.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Method(NamedTuple):
    """How a method adapts a ViT.

    Attributes:
        title: The name in tables and figures.
        prompt: The type of the prompts; empty for none.
        gates: Whether the prompts have gates, which start at a prior.
        hard: Whether a gate is either open or closed.
        each_block: Whether each block has prompts of its own.
        temperature: Whether each block learns the temperature of its attention.
        frozen: Whether the pretrained weights stay as they are, so that checkpoints need not hold them.
        backbone: The type of the backbone.
        adapts: Whether it adapts the ViT with few parameters: neither none nor all of it is trained.
        ade20k: The name in the files ``configs/setr_pup_NAME_VIT_ade20k.py``, where it is another one.
    """
    title: str
    prompt: str = ''
    gates: bool = False
    hard: bool = False
    each_block: bool = False
    temperature: bool = False
    frozen: bool = True
    backbone: str = 'GatedPromptViT'
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
    'bias': Method('Biases only', frozen=False, backbone='BiasTunedViT'),
    'lora': Method('LoRA', backbone='LoRAViT'),
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
    return dict(
        prompt=prompt,
        **(dict(temperature=True) if row.temperature else {}),
        **({} if row.frozen else dict(frozen=False)),
        **({} if row.backbone == 'GatedPromptViT' else dict(type=row.backbone)))


def tokens_per_set(method: str, prompts: int, blocks: int) -> int:
    """Returns ``prompts // blocks`` where each block has prompts of its own, else ``prompts``."""
    return prompts // blocks if METHODS[method].each_block else prompts


def method_of(backbone: Mapping) -> str:
    """Returns the name of the method that a backbone's settings show, or else a description."""
    prompt = (backbone.get('prompt') or {}).get('type', '')
    temperature = backbone.get('temperature', False) is not False  # {} means temperatures as they are by default
    frozen, kind = backbone.get('frozen', True), backbone.get('type', 'GatedPromptViT')
    for name, row in METHODS.items():
        if (prompt, temperature, kind) == (row.prompt, row.temperature, row.backbone) and (
                frozen == row.frozen or kind != 'GatedPromptViT'):  # other classes decide themselves what they freeze
            return name
    if not frozen:
        return 'full with prompts or temperatures'
    return f'{prompt} and temperatures' if prompt and temperature else prompt or 'temperatures without prompts'

"""The table of pretrained ViTs: how each one is called, its config, and what experiments have to know of it."""

from typing import NamedTuple

from mmengine.config import Config

from ..resources import CONFIGS


class ViT(NamedTuple):
    """A pretrained ViT.

    Attributes:
        title: The name in tables and figures.
        file: The file in ``configs/_base_/backbones``, without its suffix.
        family: Whose hyperparameters of Table 5 it takes. Those of MAE have the learning rates that section A.2 gives
            for the supervised ViT in Figure 1.
        blocks: How many there are.
        out_type: What a linear layer classifies. The authors pool MAE by the mean of prompts and patches, and MoCo v3
            by CLS.
        protocol: How that linear layer is trained, one of ``PROTOCOLS`` in :mod:`.linear`. The paper's is for the ViTs
            of the paper.
    """
    title: str
    file: str
    family: str = 'mae'
    blocks: int = 12
    out_type: str = 'cls_token'
    protocol: str = 'normalised'


VITS = {
    'dino': ViT('DINO', 'dino_b'),
    'dinov2': ViT('DINOv2', 'dinov2_b'),
    'dinov2-l': ViT('DINOv2 (ViT-L)', 'dinov2_l', blocks=24),
    'dinov2-reg': ViT('DINOv2 with registers', 'dinov2_reg_b'),
    'dinov2-reg-l': ViT('DINOv2 with registers (ViT-L)', 'dinov2_reg_l', blocks=24),
    'dinov2-reg-s': ViT('DINOv2 with registers (ViT-S)', 'dinov2_reg_s'),
    'dinov2-s': ViT('DINOv2 (ViT-S)', 'dinov2_s'),
    'dinov3': ViT('DINOv3', 'dinov3_b'),
    'dinov3-hplus': ViT('DINOv3 (ViT-H+)', 'dinov3_hplus', blocks=32),
    'dinov3-l': ViT('DINOv3 (ViT-L)', 'dinov3_l', blocks=24),
    'dinov3-s': ViT('DINOv3 (ViT-S)', 'dinov3_s'),
    'dinov3-sat-l': ViT('DINOv3 on satellite images (ViT-L)', 'dinov3_sat_l', blocks=24),
    'dinov3-splus': ViT('DINOv3 (ViT-S+)', 'dinov3_splus'),
    'mae': ViT('MAE', 'mae_b', out_type='mean_all', protocol='paper'),
    'mae-l': ViT('MAE (ViT-L)', 'mae_l', blocks=24, out_type='mean_all', protocol='paper'),
    'mocov3': ViT('MoCo v3', 'mocov3_b', 'mocov3', protocol='paper'),
    'mocov3-s': ViT('MoCo v3 (ViT-S)', 'mocov3_s', 'mocov3', protocol='paper'),
    'supervised': ViT('Supervised', 'supervised_b', protocol='paper'),
}
SELF_SUPERVISED = ('mae', 'mocov3')  # those in most tables and figures of the paper


def settings_of_vit(vit: str) -> dict:
    """Returns what the base of a ViT says: settings of GatedPromptViT, and its pixel statistics if they are unusual."""
    return Config.fromfile(CONFIGS / f'_base_/backbones/{VITS[vit].file}.py').vit.to_dict()

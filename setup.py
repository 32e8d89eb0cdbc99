"""The package's metadata: what it needs, and what it leaves to the user."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
# Read, not imported: importing needs torch.
source = (root / 'mmseg_gpt/__init__.py').read_text(encoding='utf-8')
version = re.search(r"^__version__ = '(.+)'", source, re.MULTILINE)[1]

# Without these files, `import mmcv` fails. Not a hard requirement: it would overwrite the files of a full mmcv.
lite = ['mmcv-lite==2.1.0']
# mmpretrain also imports torchvision, without declaring it. Nor is it here: each release asks for one torch, so pip
# would replace an installed torch to suit the newest torchvision. Install the two together, before this package.
classification = ['mmpretrain>=1.2.0,<2']
# PSNR and SSIM of reconstructed images. Other figures need what mmsegmentation needs anyway.
analysis = ['scikit-image']
# timm asks for torchvision: the same holds. The notebook is executed, and what TensorBoard is given is read.
test = ['import-linter', 'ipykernel', 'nbclient', 'pytest', 'pytest-xdist', 'ruff', 'safetensors', 'tensorboard', 'timm']

setup(
    name='mmseg_gpt',
    version=version,
    description='Gated Prompt Tuning of frozen vision transformers for semantic segmentation, in OpenMMLab',
    long_description=(root / 'README.md').read_text(encoding='utf-8') if (root / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmseg_gpt', 'mmseg_gpt.*']),
    python_requires='>=3.10,<3.14',  # 3.14 removed pkgutil.find_loader, which mmengine 0.10 calls
    install_requires=[
        'torch>=2.6',  # the first that loads with weights_only=True by default
        'filelock',  # torch needs it too
        'mmengine>=0.10.7,<1',
        'mmsegmentation>=1.2.2,<2',
        'ftfy', 'regex',  # mmsegmentation imports both and declares neither
        'setuptools>=77,<82',  # mmengine's config inheritance imports pkg_resources, which 82 removed
    ],
    extras_require={
        'lite': lite,
        'classification': classification,
        'analysis': analysis,
        'test': test,
        'all': [*lite, *classification, *analysis, *test],
    },
)

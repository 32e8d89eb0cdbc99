"""The package's metadata: what it needs, what it leaves to the user, and what goes into its wheel."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithConfigsAndTools(build_py):
    """Puts ``configs`` and ``tools`` into the wheel, where :mod:`mmseg_gpt.resources` finds them.

    An editable installation uses those of the clone.
    """

    def run(self) -> None:
        package = Path(self.build_lib, 'mmseg_gpt')
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)  # an earlier build may have left modules that are gone by now
        super().run()
        if not self.editable_mode:
            for name in ('configs', 'tools'):
                shutil.copytree(root / name, package / '.mim' / name, ignore=shutil.ignore_patterns('__pycache__'))


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
# Compressed run lengths of COCO. Other annotations are read with what is there anyway.
labels = ['pycocotools']
# Images of more than 4 bands, or of bands that are no colours, which OpenCV does not read; the second is for compressed
# ones.
bands = ['tifffile', 'imagecodecs']
# GeoTIFFs, read and written in parts.
geo = ['rasterio']
# The page of `mmseg-gpt app`.
app = ['gradio>=6,<7']
# Models as ONNX files, and their runs.
export = ['onnx', 'onnxruntime>=1.20', 'onnxscript']
# Many runs as jobs of Slurm, or of a Ray cluster.
cluster, ray = ['submitit>=1.5'], ['ray>=2.9']
# Models on the Hugging Face Hub.
hub = ['huggingface_hub>=1.0', 'safetensors']
# Answers over HTTP.
serve = ['fastapi>=0.110,<1', 'uvicorn>=0.29,<1']
# The documentation as a site. It reads this package and does not import it; `make docs` has an environment for it.
docs = ['mkdocs-material', 'mkdocstrings[python]', 'ruff']
# timm asks for torchvision: the same holds. The notebook is executed, and what TensorBoard is given is read.
test = ['import-linter', 'ipykernel', 'nbclient', 'pytest', 'pytest-xdist', 'ruff', 'safetensors', 'tensorboard',
        'timm']
# What tests and tools/benchmark_peers.py compare with, if it is there. It is not among the tested versions: it brings
# much, and mmpretrain imports it wherever it finds it.
peers = ['peft>=0.15,<1', 'transformers>=4.56,<6']

setup(
    name='mmseg_gpt',
    version=version,
    description='Gated Prompt Tuning of frozen vision transformers, for segmentation and classification in OpenMMLab',
    long_description=(root / 'README.md').read_text(encoding='utf-8') if (root / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['prompt tuning', 'vision transformer', 'semantic segmentation', 'OpenMMLab'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Environment :: GPU :: NVIDIA CUDA',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmseg_gpt', 'mmseg_gpt.*']),
    py_modules=['mmseg_gpt_cli'],
    package_data={'': ['*.mplstyle']},
    entry_points={'console_scripts': ['mmseg-gpt = mmseg_gpt_cli:main']},
    cmdclass={'build_py': BuildWithConfigsAndTools},
    python_requires='>=3.10,<3.14',  # 3.14 removed pkgutil.find_loader, which mmengine 0.10 calls
    install_requires=[
        'torch>=2.6',  # the first that loads with weights_only=True by default
        'filelock',  # torch needs it too
        'mmengine>=0.10.7,<1',
        'pyyaml',  # mmengine needs it too
        'mmsegmentation>=1.2.2,<2',
        'ftfy', 'regex',  # mmsegmentation imports both and declares neither
        'setuptools>=77,<82',  # mmengine's config inheritance imports pkg_resources, which 82 removed
    ],
    extras_require={
        'lite': lite,
        'classification': classification,
        'analysis': analysis,
        'labels': labels,
        'bands': bands,
        'geo': geo,
        'app': app,
        'export': export,
        'cluster': cluster,
        'ray': ray,
        'hub': hub,
        'serve': serve,
        'docs': docs,
        'test': test,
        'peers': peers,
        'all': [*lite, *classification, *analysis, *labels, *docs, *test],
    },
)

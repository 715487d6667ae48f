"""Package metadata; tool settings live in pyproject.toml, locked versions in requirements*.lock."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "sact_det/__init__.py").read_text(), re.M).group(1)

# What Detectron2 itself imports. Detectron2 is not listed: it has no release on the package index, and an
# installation that is already there (a git checkout, a cluster's module) must be left alone. See README.md.
DETECTRON2_NEEDS = [
    "cloudpickle",
    "fvcore>=0.1.5.post20221221",
    "hydra-core>=1.1",
    "iopath>=0.1.9",
    "omegaconf>=2.1",
    "setuptools<82",  # the last with pkg_resources, which detectron2.model_zoo imports
    "tabulate",
    "tensorboard",
    "termcolor",
    "yacs>=0.1.8",
]

# What single tasks need beside the rest.
EXTRAS = {
    "bench": ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.1"],
    "demo": ["scikit-image>=0.22", "scikit-learn>=1.3"],
    "docs": ["mkdocs-material>=9.5", "mkdocstrings-python>=1.10"],
    "export": ["onnx>=1.16", "onnxruntime>=1.18"],
    "interop": ["supervision>=0.22"],
    "live": ["gradio>=6"],
    "notebook": ["ipykernel>=6", "nbclient>=0.10"],
    "video": ["av>=15"],  # FFmpeg 7.1 or later: films of killed runs can be played
    "wandb": ["wandb>=0.16"],
}

setup(
    name="sact_det",
    version=VERSION,
    description="Spatially Adaptive Computation Time for object detection and visual saliency, on Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["sact_det", "sact_det.*", "saliency", "saliency.*"]),
    package_data={
        "sact_det": [
            *("py.typed", "execution/cpu/*.cpp", "execution/cpu/*.h"),
            *("weights/own/*.npz", "report/templates/*", "data/*.txt"),
        ],
        "saliency": ["py.typed"],
    },
    install_requires=[
        "google-crc32c>=1.5",
        "h5py>=3.10",
        "jinja2>=3.1",
        "matplotlib>=3.7",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pillow>=9.5",
        "pycocotools>=2.0.7",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "torch>=2.5",
        "torchvision>=0.20",
        "tqdm",
        "typing-extensions>=4.4",
        *DETECTRON2_NEEDS,
    ],
    extras_require={
        **EXTRAS,
        "dev": [
            f"sact_det[{','.join(sorted(EXTRAS.keys() - {'bench', 'wandb'}))}]",
            "axe-core-python>=0.1",
            "mypy>=1.8",
            "pre-commit",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "selenium>=4.20",
            "timm>=1.0",
        ],
    },
)

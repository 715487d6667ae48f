"""Weights that others have published, by name: where they lie, what they are, and what is known of the files."""

from pathlib import Path
from typing import NamedTuple, Optional

from sact_det.base.errors import InputError

SCHEME = "sact://"
_AUTHORS = "https://s3.us-east-2.amazonaws.com/sact-models"  # the README of the original program
_TF_SLIM = "http://download.tensorflow.org/models"  # the README of TF-Slim
_HUB = "https://huggingface.co"
_TIMM = "timm/"
OWN = Path(__file__).parent / "own"  # the files that come with this package; docs/MODEL_ZOO.md has their commands
TIMM_NETWORKS = ("resnetv2_50", "resnetv2_101", "resnetv2_152")


class Published(NamedTuple):
    """A file of weights that somebody publishes.

    Attributes:
        name: behind "sact://".
        url: of the file; the path of one that comes with this package.
        conversion: the key in CONVERSIONS (conversion.py) of what reads it.
        what: in a few words.
        size: in bytes; None: it is not known, and not compared.
        sha256: of the file; None: it is not known, and not compared.
    """

    name: str
    url: str
    conversion: str
    what: str
    size: Optional[int] = None
    sha256: Optional[str] = None


def _of_authors(name: str, what: str) -> Published:
    return Published(name, f"{_AUTHORS}/{name}.tar.gz", "sact-tf", what)


def _of_tf_slim(depth: int) -> Published:
    name = f"resnet_v2_{depth}"
    return Published(name, f"{_TF_SLIM}/{name}_2017_04_14.tar.gz", "tf-slim", f"TF-Slim's ResNet-v2 {depth}, ImageNet")


def _own(name: str, what: str, size: int, sha256: str) -> Published:
    return Published(name, str(OWN / f"{name}.npz"), "from-compact", what, size, sha256)


PUBLISHED = {
    own.name: own
    for own in (
        _of_authors("imagenet_101", "ResNet-101, ImageNet: what ACT and SACT networks start from"),
        _of_authors("imagenet_101_sact_5e-3", "ResNet-101 SACT, tau 0.005, ImageNet"),
        _of_authors("cifar10_resnet_5_sact_1e-2", "ResNet-32 SACT, tau 0.01, CIFAR-10"),
        *map(_of_tf_slim, (50, 101, 152)),
        _own(
            "demo",
            "the demo's SACT detector, digits on photographs; configs/demo/sact.yaml",
            2330510,
            "cc94b3996eada62e37ee9589ef49f9b6bd58c9a1b8723109eb1e6cbd87a25bfb",
        ),
        _own(
            "cifar10",
            "ResNet-32 SACT, tau 0.01, briefly trained on a sixth of CIFAR-10; configs/CIFAR10/sact_R_32_tau_0.01.yaml",
            496795,
            "34bc60ff7b733be431702c16b221e997f19c30f8712ea417f887aa8c1406f919",
        ),
    )
}


def find_published(name: str) -> Published:
    """What a name stands for: one of PUBLISHED, or timm's by its name on the hub, such as "timm/resnetv2_50.a1h_in1k".

    Raises:
        InputError: nothing is published under this name, as far as this package knows.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    network, _, tag = name.removeprefix(_TIMM).partition(".")
    if name.startswith(_TIMM) and network in TIMM_NETWORKS and tag.replace("_", "").isalnum():
        return Published(name, f"{_HUB}/{name}/resolve/main/model.safetensors", "timm", f"timm's {network}, {tag}")
    raise InputError(
        f"{SCHEME}{name}: no such weights; there are {', '.join(PUBLISHED)}, and {_TIMM}NAME for timm's "
        f"{', '.join(TIMM_NETWORKS)} (NAME as on the hub, such as resnetv2_50.a1h_in1k)"
    )

"""Weight files that are damaged, foreign or none at all, or that do not fit a config."""

import math
import os
import pickle
from argparse import Namespace

import torch

from sweep.harness import (
    DETECTOR,
    DRAW_CLASSES,
    DRAW_DETECTIONS,
    EVALUATE_CLASSIFIER,
    EVALUATE_DETECTOR,
    EXPORT,
    MATCHED,
    RESOLUTIONS,
    SALIENCY,
    Case,
    Word,
    file,
    good,
)
from sweep.spoilt_weights import (
    Executes,
    changed,
    claim_folder,
    flip_record,
    make_ring,
    make_socket,
    sact,
    saved,
    special,
    spoilt,
    valued,
)

WEIGHT, VARIANCE = "stem.conv.weight", "block1.units.0.preact.running_var"


def commands(says: str, weights: Word) -> list[Case]:
    """The same bad weights for every command that reads some."""
    return [
        Case("convert_weights", says, "inspect", weights),
        Case("train_net", says, *EVALUATE_CLASSIFIER, "MODEL.WEIGHTS", weights),
        Case("export_ponder", says, *EXPORT, "MODEL.WEIGHTS", weights),
        Case("matched_units", says, *MATCHED, "MODEL.WEIGHTS", weights),
        Case("visualize", says, *DRAW_CLASSES, "--input", good("photograph"), "MODEL.WEIGHTS", weights),
    ]


def inspect(says: str, weights: Word) -> Case:
    return Case("convert_weights", says, "inspect", weights)


def detector(says: str, weights: Word) -> Case:
    return Case("train_net", says, *EVALUATE_DETECTOR, "MODEL.WEIGHTS", weights)


NAN, LAST = math.nan, "block4.units.1.conv3.weight"
SCORES = "roi_heads.box_predictor.cls_score.weight"
DAMAGED = r"w\.pth: (damaged, or not a weight file|.*or is damaged); expected tensors"
NO_WEIGHTS = r"w\.pth: holds no weights; expected a state dict"
PICKLED, NO_NETWORK = r"w\.pth: holds pickled objects", r"w\.pth: 'sact' does not describe a network"

CASES = [
    # Files that cannot be read, or are no files
    *commands(r"nowhere\.pth: no such weight file", "nowhere.pth"),
    *commands(r"w\.pth: cannot be read \(it is a pipe\); expected a regular weight file", special(os.mkfifo)),
    *commands(DAMAGED, file("w.pth", b"")),
    *commands(r"w\.pth: damaged: the checksum or the header of its record '.*/data/0' is wrong", spoilt(flip_record)),
    *commands(rf"w\.pth: {WEIGHT}: .* values are NaN, infinite", valued(WEIGHT, lambda value: value * NAN)),
    inspect(r"/dev/null: cannot be read \(it is a device\)", "/dev/null"),
    inspect(r"w\.pth: cannot be read \(it is a socket\)", special(make_socket)),
    inspect(r"w\.pth: cannot be read \(Too many levels", special(make_ring)),
    inspect(r"w\.pth/below: no such weight file", lambda place: file("w.pth", b"")(place) + "/below"),
    inspect(r"w/checkpoint: no such file; expected it to name the checkpoint", special(os.mkdir, "w")),
    inspect(r"File name too long|cannot be read", "x" * 300 + ".pth"),
    detector(r"nowhere\.pth: no such weight file", "nowhere.pth"),
    detector(r"^\.: cannot be read \(it is a folder\)", "."),
    detector(r"http://127\.0\.0\.1:9/w\.pth: cannot be fetched \(.*refused", "http://127.0.0.1:9/w.pth"),
    detector(r"https://: cannot be fetched", "https://"),
    detector(r"ftp2://host/w\.pth: no such weight file", "ftp2://host/w.pth"),
    detector(r"MODEL\.WEIGHTS is empty: evaluation needs trained weights", ""),
    Case(
        "evaluate_saliency",
        r"nowhere\.pth: no such weight file",
        *SALIENCY,
        "--model",
        "SACT",
        good("detector_config"),
        "nowhere.pth",
    ),
    Case(
        "sweep_resolutions",
        r"nowhere\.pth: no such weight file",
        *RESOLUTIONS[:3],
        "nowhere.pth",
        *RESOLUTIONS[4:],
        "--sizes",
        "32",
    ),
    Case(
        "sweep_resolutions",
        r"\.: cannot be read \(it is a folder\)",
        *RESOLUTIONS[:3],
        ".",
        *RESOLUTIONS[4:],
        "--sizes",
        "32",
    ),
    Case(
        "visualize",
        r"nowhere\.pth: no such weight file",
        *DRAW_DETECTIONS,
        "--input",
        good("photograph"),
        "MODEL.WEIGHTS",
        "nowhere.pth",
    ),
    Case("train_net", r"nowhere\.pth: no such weight file", *DETECTOR, "MODEL.WEIGHTS", "nowhere.pth"),
    # Damage
    inspect(DAMAGED, file("w.pth", b"hello, this is text")),
    inspect(DAMAGED, file("w.pth", bytes(100))),
    inspect(DAMAGED, file("w.pth", b"PK\3\4 no archive")),
    inspect(DAMAGED, file("w.pth", b"\x89HDF\r\n\x1a\n" + bytes(64))),
    inspect(DAMAGED, spoilt(lambda content: content[: len(content) // 2])),
    inspect(DAMAGED, spoilt(lambda content: content[:-1])),
    inspect(DAMAGED, spoilt(lambda content: content[1:])),
    inspect(r"w\.pth: damaged: the checksum or the header of its record", spoilt(claim_folder)),
    inspect(PICKLED, file("w.pth", pickle.dumps({"model": Executes()}))),
    inspect(PICKLED, file("w.pth", saved({"model": Executes()}))),
    inspect(PICKLED, file("w.pth", saved(Executes()))),
    inspect(PICKLED, file("w.pth", saved({"model": {"a": torch.zeros(1)}, "args": Executes()}))),
    inspect(PICKLED, file("w.pth", saved(torch.nn.Linear(2, 2)))),
    # Content that is none
    inspect(NO_WEIGHTS, file("w.pth", saved([1, 2]))),
    inspect(NO_WEIGHTS, file("w.pth", saved(torch.zeros(3)))),
    inspect(NO_WEIGHTS, file("w.pth", saved(None))),
    inspect(NO_WEIGHTS, file("w.pth", saved({}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": 3}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": {"a": 3}}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"model": {3: torch.zeros(1)}}))),
    inspect(NO_WEIGHTS, file("w.pth", saved({"args": Namespace(lr=0.1)}))),
    inspect(r"a: is a sparse, quantised or meta tensor", file("w.pth", saved({"a": torch.eye(3).to_sparse()}))),
    inspect(r"a: is a sparse, quantised or meta tensor", file("w.pth", saved({"a": torch.zeros(3, device="meta")}))),
    inspect(r"a: is empty, float32 \[0, 3\]", file("w.pth", saved({"a": torch.zeros(0, 3)}))),
    inspect(r"a: 1 of 1 values", file("w.pth", saved({"a": torch.tensor([NAN]).expand(10**6, 10**6)}))),
    inspect(
        r"a\.b: .* is there twice|a\.b is there twice",
        file("w.pth", saved({"a.b": torch.zeros(1), "a._orig_mod.b": torch.ones(1)})),
    ),
    # Metadata
    inspect(r"w\.pth: 'sact' is a int; expected a dict", changed(lambda content: content.update(sact=3))),
    *(
        inspect(rf"{NO_NETWORK} as our weight files do: {key} must ", sact(**{key: value}))
        for key, values in {
            "family": (3, None),
            "units": (3, [1, -2], [1.5], "1234", [True]),
            "base_channels": (0, -4, "64", None, 1.5),
            "dilation": (2, [0, 1], "1"),
            "num_classes": (0, "3", 2.5),
            "pixel_mean": (3, [NAN] * 3, "127"),
            "pixel_std": (["a"], [math.inf] * 3),
            "missing": (3, "logits", [3]),
            "unused": ({}, [None]),
        }.items()
        for value in values
    ),
    # Weights that do not fit the config
    *(
        Case("train_net", rf"w\.pth: .*{says}", *EVALUATE_CLASSIFIER, "MODEL.WEIGHTS", weights)
        for says, weights in {
            rf"{WEIGHT} is int32 .*; expected floats": valued(WEIGHT, lambda value: value.int()),
            rf"{WEIGHT} is bool .*; expected floats": valued(WEIGHT, lambda value: value > 0),
            rf"{WEIGHT} is complex64 .*; expected floats": valued(WEIGHT, lambda value: value + 0j),
            rf"{VARIANCE}: .* variances are negative": valued(VARIANCE, lambda value: value - 1000),
            rf"{WEIGHT}: .* beyond float32": valued(WEIGHT, lambda value: value.double() + 1e300),
            rf"shapes differ: {WEIGHT} is \[64, 3, 7\]": valued(WEIGHT, lambda value: value[..., 0]),
            rf"not in the file: {LAST}": changed(lambda content: content["model"].__delitem__(LAST)),
            r"not in the model: another": changed(lambda content: content["model"].update(another=torch.zeros(1))),
            r"they need MODEL\.SACT\.UNITS \(9, 9, 9, 9\)": sact(units=(9, 9, 9, 9)),
            r"they need MODEL\.CLASSIFIER\.FAMILY cifar": sact(family="cifar"),
            r"shapes differ: logits\.": valued("logits.weight", lambda value: value[:2]),
        }.items()
    ),
    detector(rf"w\.pth: {SCORES}: .* values are NaN", valued(SCORES, lambda value: value / 0 * 0, "detector_weights")),
    detector(rf"w\.pth: {SCORES}: is empty", valued(SCORES, lambda value: value[:0], "detector_weights")),
    detector(rf"shapes differ: {SCORES}", valued(SCORES, lambda value: value[:, :3], "detector_weights")),
    detector(r"shapes differ: backbone\.block1", good("classifier_weights")),
    Case(
        "train_net",
        r"shapes differ: roi_heads",
        *DETECTOR,
        "MODEL.WEIGHTS",
        valued(SCORES, lambda value: value[:2, :3], "detector_weights"),
    ),
]

import argparse
import contextlib
from pathlib import Path

import pytest

from sact_det.base.command_line import check_positive, parse_with_overrides, split_overrides
from sact_det.base.errors import InputError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--input", nargs="+")
    made.add_argument("--title")
    return made


@pytest.mark.parametrize(
    "words",
    [
        "--title T --input a.jpg b.jpg MODEL.WEIGHTS w.pth SEED 3",
        "--input a.jpg b.jpg MODEL.WEIGHTS w.pth --title T SEED 3",
        "MODEL.WEIGHTS w.pth SEED 3 --title T --input a.jpg b.jpg",
    ],
)
def test_overrides_are_found_wherever_they_stand(words: str):
    args = parse_with_overrides(parser(), words.split())
    assert args.opts == ["MODEL.WEIGHTS", "w.pth", "SEED", "3"]
    assert args.input == ["a.jpg", "b.jpg"] and args.title == "T"


def test_what_follows_without_an_option_before_it_is_an_override_even_if_misspelt():
    args = parse_with_overrides(parser(), ["--title", "T", "MODLE.WEIGHTS", "w.pth", "MODEL.SACT.TAU", "0.1"])
    assert args.opts == ["MODLE.WEIGHTS", "w.pth", "MODEL.SACT.TAU", "0.1"]


def test_a_file_and_a_photograph_are_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("INPUT.JPG").touch()
    assert split_overrides(["INPUT.JPG", "IMG_1.JPG", "test.png"]) == (["INPUT.JPG", "IMG_1.JPG", "test.png"], [])
    assert split_overrides(["a", "SOLVER.BASE_LR"]) == (["a"], ["SOLVER.BASE_LR"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_size": 0}, "--image-size must be positive; got 0"),
        ({"image_size": -3}, "--image-size must be positive; got -3"),
        ({"image_size": [4, 0, 2]}, "--image-size must be positive; got 0"),
        ({"image_size": (1, 2)}, None),
        ({"image_size": None}, None),
    ],
)
def test_numbers_below_one_are_refused_by_the_name_of_their_option(given, said):
    args = argparse.Namespace(**given, other=0)
    with contextlib.nullcontext() if said is None else pytest.raises(InputError, match=said):
        check_positive(args, "--image-size")

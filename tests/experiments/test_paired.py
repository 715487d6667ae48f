"""Two classifiers image by image: counts by hand, and McNemar's test from sums of binomial coefficients."""

import json
import math

import pytest
from command_lines import error_line, load_tool

from sact_det.experiments.paired import Paired, compare_images

tool = load_tool("compare_classifiers")


def evaluated(folder, right, names=None):
    """An evaluation of as many images, which are classified right or not."""
    path = folder / "inference/mine/classification.json"
    path.parent.mkdir(parents=True)
    names = names or [f"{number}.jpg" for number in range(len(right))]
    rows = [{"file_name": name, "label": 3, "top": [3 if own else 4, 3]} for name, own in zip(names, right)]
    path.write_text(json.dumps({"images": rows}))
    return str(folder)


@pytest.mark.parametrize(("first", "second"), [(29, 11), (5, 13), (0, 6), (7, 7), (1, 0), (0, 0)])
def test_p_is_the_share_of_coin_tosses_that_are_as_uneven(first, second):
    alone = first + second
    uneven = [k for k in range(alone + 1) if abs(2 * k - alone) >= abs(first - second)]
    expected = sum(math.comb(alone, k) for k in uneven) / 2**alone
    assert Paired(300, 200, first, second).p_value == pytest.approx(expected)


def test_images_are_paired_by_name_in_whatever_order():
    first = {"a": True, "b": True, "c": False, "d": True}
    second = {"d": True, "c": True, "b": False, "a": False}
    pair = compare_images(first, second)
    assert pair == Paired(images=4, both=1, first=2, second=1) and pair.difference == 25.0


def test_seeds_are_compared_one_by_one_and_written(tmp_path, capsys):
    own = [evaluated(tmp_path / f"own_{seed}", right) for seed, right in enumerate([[1, 1, 1, 0], [1, 0, 0, 0]])]
    other = [evaluated(tmp_path / f"other_{seed}", right) for seed, right in enumerate([[0, 0, 0, 1], [1, 0, 0, 0]])]
    out = tmp_path / "numbers.json"
    tool.main(["--network", "SACT", *own, "--minus", "plain", *other, "--output", str(out)])
    table = capsys.readouterr().out
    assert "| by SACT alone | by plain alone |" in table and f"| {own[0]} | 4 | 0 | 3 | 1 | +50.00 | 0.62 |" in table
    first, second = json.loads(out.read_text())["pairs"]
    assert (first["first"], first["second"], first["p_value"]) == (3, 1, 0.625)
    assert (second["network"], second["minus"], second["both"], second["p_value"]) == (own[1], other[1], 1, 1.0)


def test_what_cannot_be_compared_is_one_clear_line(tmp_path, capsys):
    good = evaluated(tmp_path / "good", [1, 0])
    strange = evaluated(tmp_path / "strange", [1, 0], ["0.jpg", "x.jpg"])
    empty = evaluated(tmp_path / "empty", [])
    broken = tmp_path / "broken/inference/mine/classification.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"images": [{"file_name": "a", "label": 1, "top": []}]}')
    for words, said in (
        (
            [good, "--minus", "b", strange],
            "1.jpg: was classified by one network alone; expected the same images of both",
        ),
        ([empty, "--minus", "b", empty], "no image was classified"),
        ([good, good, "--minus", "b", good], "--network names 2 folders, --minus 1; expected as many, at least one"),
        ([good, "--minus", "b", str(tmp_path)], f"{tmp_path}: has 0 of inference/*/classification.json; expected"),
        ([str(tmp_path / "broken"), "--minus", "b", good], f"{broken}: expected file_name, label and top"),
    ):
        assert error_line(capsys, tool.main, ["--network", "a", *words]).startswith(said)

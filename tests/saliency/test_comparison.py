"""Two models of one evaluation are compared image by image."""

import json
import re

import numpy as np
import pytest
from command_lines import load_tool

from saliency.comparison import ImageScores
from saliency.intervals import bootstrap_intervals

tool = load_tool("compare_saliency")
IMAGES = [f"a/{number}" for number in range(30)]


@pytest.fixture
def folder(tmp_path):
    """Scores of two models, the second better by about 0.1 in AUC and by nothing in NSS."""
    rng = np.random.default_rng(0)
    lines = ["model,map,category,image,auc,nss", *(f"centre baseline,mit,a,{name},0.5,0" for name in IMAGES)]
    first = rng.random((30, 2))
    for model, stage, values in (
        ("one, with a comma", "with centre", first),
        ("two", "blurred", first - 1),
        ("two", "with centre", first + rng.normal([0.1, 0], 0.01, (30, 2))),
    ):
        order = rng.permutation(30)
        lines += [f'"{model}",{stage},a,{IMAGES[index]},{values[index, 0]},{values[index, 1]}' for index in order]
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_differences_are_those_of_the_same_images(folder, caplog):
    scores = ImageScores.read(folder)
    assert scores.models == ["one, with a comma", "two"] and scores.images == tuple(IMAGES)
    with caplog.at_level("INFO"):
        tool.main([str(folder), "--output", str(folder / "found.json")])
    found = json.loads((folder / "found.json").read_text())["differences"]["two"]
    apart = scores.of("two") - scores.of("one, with a comma")
    for name, expected in zip(("auc", "nss"), bootstrap_intervals(apart)):
        assert found[name]["mean"] == pytest.approx(expected.mean) and found[name]["low"] == pytest.approx(expected.low)
    assert 0.09 < found["auc"]["low"] < 0.1 < found["auc"]["high"] < 0.11 and found["auc"]["images"] == 30
    assert found["nss"]["low"] < 0 < found["nss"]["high"]
    assert "| two | one, with a comma | +0.10" in caplog.text


def test_a_metric_that_is_infinite_has_no_difference(folder, caplog):
    path = folder / "images.csv"
    path.write_text(re.sub(r'("two",with centre,a,a/7),[^,]+', r"\1,-inf", path.read_text()))
    assert list(ImageScores.read(folder).differences("two", "one, with a comma")) == ["nss"]
    with caplog.at_level("INFO"):
        tool.main([str(folder)])
    assert "| two | one, with a comma | - | " in caplog.text


BAD = {
    "no folder": (["/nowhere"], "/nowhere/images.csv: no such scores; expected the folder of tools/evaluate_saliency"),
    "no model": (["FOLDER", "--minus", "three"], "no model 'three'; there are one, with a comma, two"),
    "no map": (["FOLDER", "--map", "blurred"], "no map 'blurred' of 'one, with a comma'; there are with centre"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared_is_named(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.main([str(folder) if one == "FOLDER" else one for one in arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace("category", "kind"),
        lambda text: text.rsplit("\n", 2)[0],
        lambda text: text.replace(",0.5,0\n", ",0.5\n", 1),
        lambda text: text.replace(",0.5,0\n", ",0.5,high\n", 1),
    ],
    ids=["empty", "other columns", "an image less", "a cell less", "a word"],
)
def test_a_file_that_is_something_else_is_refused_in_one_line(folder, capsys, change):
    path = folder / "images.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit):
        tool.main([str(folder)])
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: not as tools/evaluate_saliency.py writes it: ") and said.count("\n") == 1

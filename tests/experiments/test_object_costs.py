"""What detectors spend on objects, against values written out by hand, and the command that compares detectors."""

import json
import math
import re

import pytest
from command_lines import error_line, load_tool
from scipy.stats import spearmanr

from sact_det.base.errors import InputError
from sact_det.experiments.object_costs import object_costs

tool = load_tool("object_costs")


def row(mean, inside, outside, *objects):
    """Of an image; objects are (share of its area in percent, ponder cost)."""
    return {
        "cost_mean": mean,
        "cost_inside": inside,
        "cost_outside": outside,
        "objects": [{"area_percent": area, "cost": cost} for area, cost in objects],
    }


ROWS = [
    row(4.0, 6.0, 3.0, (1.0, 6.0), (49.0, 3.0)),
    row(2.0, 1.0, 2.0, (100.0 / 4, 1.0)),
    row(6.0, None, 6.0),
    row(4.0, 5.0, 4.0, (4.0, 5.0), (9.0, 6.0), (0.0, None), (16.0, 4.0)),
]


def test_images_with_both_kinds_of_pixels_say_what_is_spent_inside_and_outside():
    costs = object_costs(ROWS)
    assert (costs.inside, costs.outside) == pytest.approx((4.0, 3.0))
    assert costs.ratio == pytest.approx((6 / 3 + 1 / 2 + 5 / 4) / 3)
    assert costs.more_inside == pytest.approx(2 / 3)


def test_objects_are_grouped_by_the_side_of_their_box():
    """Six objects that have pixels: sides 10, 20, 30, 40, 50 and 70 percent, in five groups."""
    groups = object_costs(ROWS).by_size
    assert [group.at for group in groups] == pytest.approx([10.0, 20.0, 30.0, 40.0, 60.0])
    assert [group.value for group in groups] == pytest.approx([2.0, 1.25, 1.5, 1.0, (0.5 + 1.0) / 2])
    assert [group.images for group in groups] == [1, 1, 1, 1, 2]
    assert groups[-1].error == pytest.approx(math.sqrt(2 * 0.25**2) / math.sqrt(2))


def test_objects_of_one_image_count_as_one_observation():
    rows = [row(1.0, 1.0, 1.0, *[(25.0, 3.0)] * 99), row(1.0, 1.0, 1.0, (25.0, 1.0))]
    (group,) = object_costs(rows).by_size
    assert (group.value, group.images) == (pytest.approx(2.0), 2)


def test_images_are_grouped_by_their_number_of_objects():
    """0, 1, 2 and 4 of them; the mean of all images is 4."""
    groups = object_costs(ROWS).by_crowd
    assert [group.at for group in groups] == [0, 1, 2, 4]
    assert [group.value for group in groups] == pytest.approx([1.5, 0.5, 1.0, 1.0])


def test_correlations_are_of_ranks_and_nothing_where_all_is_alike():
    costs = object_costs(ROWS)
    assert costs.size_correlation == pytest.approx(spearmanr([10, 70, 50, 20, 30, 40], [2, 1, 0.5, 1.25, 1.5, 1])[0])
    assert costs.crowd_correlation == pytest.approx(spearmanr([2, 1, 0, 4], [4, 2, 6, 4])[0])
    alike = object_costs([row(2.0, 2.0, 2.0, (4.0, 2.0)), row(2.0, 2.0, 2.0, (9.0, 2.0))])
    assert math.isnan(alike.size_correlation) and math.isnan(alike.crowd_correlation)


@pytest.mark.parametrize("rows", [[], [row(1.0, None, 1.0)], [row(1.0, 1.0, 1.0)], [row(1.0, 1.0, None, (100.0, 1.0))]])
def test_without_objects_and_pixels_around_them_there_is_nothing_to_say(rows):
    with pytest.raises(InputError, match="no image has an object and pixels outside of boxes"):
        object_costs(rows)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "ponder.json"
    path.write_text(json.dumps({"images": ROWS}))
    return path


def test_the_command_writes_a_table_numbers_and_a_figure(written, tmp_path, capsys):
    rows = ["--row", "SACT", str(written), "--row", "the same", str(written)]
    tool.main(["--output", str(tmp_path / "out"), *rows, "--title", "all $of$ them"])
    table = (tmp_path / "out/table.md").read_text()
    assert table == capsys.readouterr().out
    assert "| SACT | 4.00 | 3.00 | 1.250 | 66.7 | -0.84 | -0.32 |" in table
    numbers = json.loads((tmp_path / "out/results.json").read_text())
    assert numbers["SACT"] == numbers["the same"] and numbers["SACT"]["by_crowd"][0]["error"] is None
    assert (tmp_path / "out/objects.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", r"ponder\.json: not a ponder\.json that a detector's evaluation wrote: images"),
        ('{"images": [{"image_id": 1}]}', r"ponder\.json: has no costs of objects; evaluate the detector anew"),
        ('{"images": []}', r"ponder\.json: no image has an object"),
        (
            '{"images": [{"objects": [], "cost_inside": "much"}]}',
            r"not a ponder\.json that a detector's evaluation wrote",
        ),
    ],
)
def test_a_file_that_has_no_costs_of_objects_is_refused(written, tmp_path, capsys, content, says):
    written.write_text(content)
    line = error_line(capsys, tool.main, ["--output", str(tmp_path / "out"), "--row", "SACT", str(written)])
    assert re.search(says, line), line
    assert not (tmp_path / "out").exists()

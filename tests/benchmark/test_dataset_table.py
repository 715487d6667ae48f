"""The table of detectors on a data set, from evaluations and times that are given."""

from pathlib import Path

from sact_det.benchmark.contestants import Contestant
from sact_det.benchmark.dataset_table import DatasetTable, part_medians
from sact_det.tasks import load_config

TINY = Path(__file__).parents[2] / "configs/tests/tiny.yaml"


def test_parts_are_medians_over_rounds_of_means_over_images():
    images = [[{"head": 1.0}, {"head": 5.0}, {"head": 9.0}], [{"head": 3.0}, {"head": 1.0}, {"head": 1.0}]]
    assert part_medians(images) == {"head": 3.0} and part_medians([]) == {}


def test_of_some_classes_their_ap_says_which_detector_is_beaten():
    quality = {"images": [{"image_id": 1, "gflops": 1.0, "regions": 1}]}
    cfg = load_config(str(TINY), data=False)
    taking_part = [Contestant(name, name, name, name == "plain", "auto", cfg) for name in ("plain", "sact")]
    for classes, beaten in (((), "plain"), (("cat",), None)):
        table = DatasetTable("", taking_part, classes=classes)
        for name, seconds, cat in (("plain", 1.0, 1.0), ("sact", 2.0, 3.0)):
            table.quality[name] = {**quality, "bbox": {"AP": 5.0 - cat, "AP50": 9.0, "AP-cat": cat, "AP-dog": 0.0}}
            table.keys[name], table.seconds[name], table.parts[name] = name, [[seconds]], [[{"all": seconds}]]
        table.images = [1]
        assert [row["beaten_by"] for row in table.values()["rows"]] == [None, beaten]
        assert ("AP of 1 classes" in table.markdown()) == bool(classes)

"""tools/analyze.py prints fvcore's count beside the paper's."""

from coco_folder import TINY, write_coco_folder
from command_lines import load_tool
from random_detector import write_random_detector

tool = load_tool("analyze")


def test_a_plain_detector_has_the_same_number_three_times(tmp_path, capsys):
    _, images = write_coco_folder(tmp_path, num_images=2)
    overrides = ["MODEL.SACT.HALTING", "none"]
    weights = write_random_detector(tmp_path / "weights.pth", TINY, *overrides)
    tool.main(["--config-file", TINY, "--images", images, *overrides, "MODEL.WEIGHTS", weights])
    head, _, *rows = capsys.readouterr().out.strip().split("\n")
    assert head == "| image | size | dense (fvcore) | plain | spent |" and len(rows) == 2
    for row in rows:
        *_, dense, plain, spent = row.strip("| ").split(" | ")
        assert dense == plain == spent and float(dense) > 0

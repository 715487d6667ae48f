"""A case of bad input: a command line, and the one line that it must end in."""

import functools
import json
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Sequence, Union

import pytest
from command_lines import load_tool

from sweep.good_inputs import GoodInputs

# What a training or evaluation writes before it has seen its data and weights.
RECORDS = ("output/log.txt", "output/config.yaml", "output/inference/log.txt", "output/inference/config.yaml")

_ERROR_LINE = re.compile(r"(?:[\w.]+(?: [\w-]+)*: )?error: (.*)")  # argparse puts the command's name before it


@dataclass(frozen=True)
class Place:
    """Where a case finds and leaves its files (see the package)."""

    folder: Path
    good: GoodInputs

    @property
    def output(self) -> Path:
        """A path for what the command writes; nothing is there."""
        return self.folder / "output"


Word = Union[str, Callable[[Place], str]]


class Case:
    """A bad input.

    Args:
        tool: the command line's name in tools/.
        says: a regular expression to be found in the error line, behind "error: ".
        words: its arguments; strings, or functions of the Place.
        leaves: patterns of files, relative to the folder of the case, that the command may leave behind.
    """

    def __init__(self, tool: str, says: str, *words: Word, leaves: Sequence[str] = ()):
        self.tool, self.says, self.words, self.leaves = tool, says, words, leaves

    def run(self, place: Place, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs the command in this process; raises AssertionError unless it ends as the package says."""
        argv = [word(place) if callable(word) else word for word in self.words]
        monkeypatch.chdir(place.folder)
        monkeypatch.setattr(sys, "argv", [f"{self.tool}.py", *argv])
        before = _contents(place.folder)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            command = tool(self.tool)
            getattr(command, "invoke_main", command.main)(argv)
        out, err = capsys.readouterr()
        code = end.value.code
        if isinstance(code, str):  # which the interpreter would write
            err, code = f"{err}{code}\n", 1
        assert code not in (None, 0), err
        assert "Traceback" not in out + err, out + err
        lines = err.rstrip("\n").split("\n")
        errors = [match for match in map(_ERROR_LINE.fullmatch, lines) if match]
        assert len(errors) == 1 and errors[0].string == lines[-1], err
        assert "(traceback: " not in err, err
        assert re.search(self.says, errors[0][1]), f"expected {self.says!r}; got {errors[0][1]!r}"
        self._check_files(before, _contents(place.folder))

    def _check_files(self, before: dict[str, bytes], after: dict[str, bytes]) -> None:
        changed = [path for path in before if after.get(path) != before[path]]
        assert not changed, f"changed or lost: {changed}"
        left = [path for path in after if path not in before]
        left = [path for path in left if not any(fnmatch(path, known) for known in (*RECORDS, *self.leaves))]
        assert not left, f"left behind: {left}"


@functools.cache
def tool(name: str) -> ModuleType:
    """tools/<name>.py."""
    return load_tool(name)


def _contents(folder: Path) -> dict[str, bytes]:
    """All files below the folder, hidden ones too; links are not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def output(place: Place) -> str:
    """The word for what the command writes."""
    return str(place.output)


def good(name: str) -> Word:
    """The word for one of the good inputs, by its attribute."""
    return lambda place: getattr(place.good, name)


def file(name: str, content: Any) -> Word:
    """The word for a bad file, which it writes: bytes, text, or anything else as JSON."""

    def write(place: Place) -> str:
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, (bytes, str)) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return write


COCO_JSON, COCO_IMAGES, CLASS_FOLDERS = good("coco_json"), good("coco_images"), good("class_folders")


def coco_data(json_file: Word = COCO_JSON, images: Word = COCO_IMAGES) -> tuple[Word, ...]:
    """Words that train and evaluate a detector on this data, called "toy"."""

    def entries(place: Place) -> str:
        return str([("toy", *(word(place) if callable(word) else word for word in (json_file, images)))])

    return "DATASETS.COCO_FORMAT", entries, "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"


def labelled_data(path: Word = CLASS_FOLDERS, split: str = "") -> tuple[Word, ...]:
    """Words that train and evaluate a classifier on this data, called "toy"."""

    def entries(place: Place) -> str:
        entry = ("toy", path(place) if callable(path) else path)
        return str([(*entry, split) if split else entry])

    return "DATASETS.CLASSIFICATION", entries, "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"


# Starts of commands that would work; all but the last two end in KEY VALUE pairs.
DETECTOR = ("--config-file", good("detector_config"), *coco_data(), "OUTPUT_DIR", output)
CLASSIFIER = ("--config-file", good("classifier_config"), *labelled_data(), "OUTPUT_DIR", output)
EVALUATE_DETECTOR = (*DETECTOR[:2], "--eval-only", *DETECTOR[2:], "MODEL.WEIGHTS", good("detector_weights"))
EVALUATE_CLASSIFIER = (*CLASSIFIER[:2], "--eval-only", *CLASSIFIER[2:], "MODEL.WEIGHTS", good("classifier_weights"))
DRAW_DETECTIONS = (*DETECTOR[:2], "--output", output, "MODEL.WEIGHTS", good("detector_weights"))
DRAW_CLASSES = (*CLASSIFIER[:2], "--output", output, "MODEL.WEIGHTS", good("classifier_weights"))
EXPORT = (*CLASSIFIER[:2], "--output", output, *labelled_data(), "MODEL.WEIGHTS", good("classifier_weights"))
MATCHED = (*CLASSIFIER[:2], "--output", output, *labelled_data(), "MODEL.WEIGHTS", good("classifier_weights"))
SALIENCY = ("--dataset", good("fixations"), "--output", output, "--processes", "1")
ANALYZE = (*DETECTOR[:2], "MODEL.WEIGHTS", good("detector_weights"))
PROGRAM = (*DETECTOR[:2], "--output", output, "--format", "torchscript", "MODEL.WEIGHTS", good("detector_weights"))
PREDICT = (
    *(*DETECTOR[:2], "--input", good("photograph"), "--output", "results.json"),
    *("MODEL.WEIGHTS", good("detector_weights")),
)
PROPOSALS = (*DETECTOR[:2], "--output", output, *coco_data(), "MODEL.WEIGHTS", good("detector_weights"))
RESOLUTIONS = ("--model", "SACT", good("classifier_config"), good("classifier_weights"), "--output", output)

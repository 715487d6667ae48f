"""Good inputs, so small that they take milliseconds, made when the first case asks for them."""

import json
from functools import cached_property
from pathlib import Path

from cat2000_folder import write_cat2000_folder
from coco_folder import write_coco_folder
from command_lines import ROOT, load_tool
from labelled_folders import write_class_folders
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.tasks import load_config


class GoodInputs:
    """Paths, all strings, below one folder that no case may change.

    Attributes:
        detector_config, classifier_config, cifar_config: of networks of a few channels for three classes.
        results: a file of tools/collect_results.py.
    """

    detector_config = str(ROOT / "configs/tests/tiny.yaml")
    classifier_config = str(ROOT / "configs/tests/tiny_classifier.yaml")
    cifar_config = str(ROOT / "configs/tests/tiny_cifar.yaml")
    results = str(ROOT / "docs/results/bccd.json")

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def detector_weights(self) -> str:
        """A weight file of the whole detector."""
        return write_random_detector(self._folder / "detector.pth", self.detector_config)

    @cached_property
    def classifier_weights(self) -> str:
        """A weight file of the classifier."""
        return write_random_weights(self._folder / "classifier.pth", load_config(self.classifier_config))

    @cached_property
    def coco(self) -> tuple[str, str]:
        """Annotations of four images in three classes, and the folder with 1.png to 4.png."""
        folder = self._folder / "coco"
        folder.mkdir()
        return write_coco_folder(folder, num_images=4)

    @cached_property
    def coco_json(self) -> str:
        """The annotations."""
        return self.coco[0]

    @cached_property
    def coco_images(self) -> str:
        """The folder of images."""
        return self.coco[1]

    @cached_property
    def photograph(self) -> str:
        """One of these images."""
        return str(Path(self.coco_images) / "1.png")

    @cached_property
    def class_folders(self) -> str:
        """Labelled images, one folder for each of three classes."""
        return write_class_folders(self._folder / "classes", per_class=2)

    @cached_property
    def fixations(self) -> str:
        """A data set of human fixations in CAT2000's layout."""
        return str(write_cat2000_folder(self._folder / "fixations"))

    @cached_property
    def ponder_file(self) -> str:
        """A file of tools/export_ponder.py with the ponder maps of `class_folders`."""
        path = str(self._folder / "ponder.h5")
        data = ["DATASETS.CLASSIFICATION", str([("toy", self.class_folders)]), "DATASETS.TEST", "('toy',)"]
        options = ["--config-file", self.classifier_config, "--output", path, "MODEL.WEIGHTS", self.classifier_weights]
        load_tool("export_ponder").main([*options, *data])
        return path

    def coco_content(self) -> dict:
        """The annotations' content, to be spoilt."""
        return json.loads(Path(self.coco_json).read_text())

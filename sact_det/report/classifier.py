"""A gallery of labelled images under trained classifiers, as they see them in evaluation."""

from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.classification.loader import label_offset, open_data_sets
from sact_det.classification.pictures import pixels_of
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import evaluation_image
from sact_det.network.halting_rule import halting_rule
from sact_det.pictures.image_sets import block_costs, without_photograph
from sact_det.report.budgets import calibrated, looking_note
from sact_det.report.gallery import Gallery, Layer, Number, PackedGallery, Seen, View

_NUMBERS = (Number("ponder cost"), Number("FLOPs", 1, "%"), Number("probability of the true class", 1, "%"))


@dataclass
class Classifier:
    """A trained classifier in the gallery, with its weights in `cfg`."""

    name: str
    cfg: CfgNode

    def __post_init__(self) -> None:
        self.predictor = ClassPredictor(self.cfg)
        self.adaptive = halting_rule(self.cfg.MODEL.SACT.HALTING).adaptive
        self.budgets: list[Optional[float]] = [*calibrated(self.cfg, self.predictor.model), None]

    def look(self, image: torch.Tensor, label: int, classes: Sequence[str]) -> Iterator[Seen]:
        """What it makes of [3, H, W] in [0, 255], whose class has this number, at every budget, as trained last."""
        for budget in self.budgets:
            if len(self.budgets) > 1:
                self.predictor.model.set_budget(budget)
            yield self._look(image, label, classes)

    def _look(self, image: torch.Tensor, label: int, classes: Sequence[str]) -> Seen:
        prediction = self.predictor(image)
        offset = label_offset(classes, len(prediction.probabilities), self.name)
        found = int(prediction.probabilities.argmax()) - offset
        probability, numbers = float(prediction.probabilities.max()), prediction.numbers
        name = classes[found] if found >= 0 else "background"
        right = "right" if found == label else f"wrong, it is {classes[label]}"
        return Seen(
            maps=list(block_costs(prediction.ponder).values()) if self.adaptive else (),
            numbers=(
                numbers["mean_ponder_cost"],
                numbers["flops_percent"],
                100 * float(prediction.probabilities[label + offset]),
            ),
            caption=f"{name} {probability:.0%} ({right})",
        )


def classifier_gallery(networks: Sequence[Classifier], most: int, photographs: bool = True) -> PackedGallery:
    """The images of the data set that the first network is evaluated on, evenly spread if there are more than `most`.

    Args:
        networks: on one data set, at the image size of the first.
        most: images.
        photographs: whether they are shown, or white in their place.

    Raises:
        InputError: the data set or an image cannot be used.
    """
    cfg = networks[0].cfg
    (images,) = open_data_sets(cfg.DATASETS.TEST)
    titles = images.titles
    chosen = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))
    settings = cfg.INPUT.CLASSIFICATION
    blocks = [f"block{number}" for number, _ in enumerate(cfg.MODEL.SACT.UNITS, 1)]
    gallery = Gallery(
        views=[View(network.name, budget) for network in networks for budget in network.budgets],
        layers=[Layer("all blocks", range(len(blocks))), *(Layer(name, (n,)) for n, name in enumerate(blocks))],
        numbers=_NUMBERS,
        classes=titles,
        expected=len(chosen),
        scored=False,
    )
    for index in tqdm(chosen, desc="images", unit="image", disable=None):  # silent where stderr is no terminal
        item = images[int(index)]
        image = evaluation_image(item["image"], settings.SIZE_TEST, settings.CROP_FRACTION)
        seen = [one for network in networks for one in network.look(image, item["label"], titles)]
        pixels = pixels_of(image)
        name = str(item["file_name"]).rpartition("/")[2]
        gallery.add(name, pixels if photographs else without_photograph(pixels), seen, labels=[item["label"]])
    return gallery.packed(note=looking_note(len(chosen), len(images), [network.budgets for network in networks]))

"""A gallery of a data set's images under trained detectors, which look at them in turns."""

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances
from tqdm import tqdm

from sact_det.data.image_files import read_checked
from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.class_names import class_names
from sact_det.detection.predictor import Prediction, Predictor
from sact_det.network.halting_rule import halting_rule
from sact_det.pictures.image_sets import block_costs, without_photograph
from sact_det.report.budgets import calibrated, looking_note
from sact_det.report.gallery import Box, Gallery, Layer, Number, PackedGallery, Seen, View
from sact_det.report.shapes import Shape

_LEAST_SCORE = 0.05  # of a box that is kept
_MOST_BOXES = 50  # of an image
_NUMBERS = (Number("ponder cost"), Number("FLOPs of the extractor", 1, "%"), Number("objects found", 0))


@dataclass
class Network:
    """A trained detector in the gallery.

    Attributes:
        name: of it.
        cfg: with its weights.
        seconds: what it took for each image as trained, the first left out.
    """

    name: str
    cfg: CfgNode
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.predictor = Predictor(self.cfg)
        self.adaptive = halting_rule(self.cfg.MODEL.SACT.HALTING).adaptive
        self.budgets: list[Optional[float]] = [*calibrated(self.cfg, self.predictor.model), None]

    @property
    def milliseconds(self) -> Optional[float]:
        """The median."""
        return 1e3 * statistics.median(self.seconds) if self.seconds else None

    def look(self, pixels: np.ndarray) -> Iterable[Seen]:
        """What it makes of uint8 RGB [H, W, 3] at every budget, as trained last."""
        for budget in self.budgets:
            if len(self.budgets) > 1:
                self.predictor.model.set_budget(budget)
            start = time.perf_counter()
            prediction = self.predictor(np.ascontiguousarray(pixels[:, :, ::-1]))
            if budget is None:
                self.seconds.append(time.perf_counter() - start)
            yield seen(prediction, self.adaptive)


def seen(prediction: Prediction, adaptive: bool) -> Seen:
    """What the gallery keeps of a prediction."""
    instances = prediction.instances
    corners = instances.pred_boxes.tensor.tolist()
    boxes = [
        Box(x0, y0, x1 - x0, y1 - y0, label, score)
        for (x0, y0, x1, y1), label, score in zip(corners, instances.pred_classes.tolist(), instances.scores.tolist())
        if score >= _LEAST_SCORE
    ]
    numbers, kept = prediction.numbers, min(len(boxes), _MOST_BOXES)
    return Seen(
        maps=list(block_costs(prediction.ponder).values()) if adaptive else (),
        numbers=(numbers["mean_ponder_cost"], numbers["flops_percent"], sum(box.score >= 0.5 for box in boxes)),
        boxes=boxes[:kept],
        shapes=_shapes(instances[instances.scores >= _LEAST_SCORE][:kept]),
    )


def _shapes(instances: Instances) -> list[Shape]:
    """The masks and keypoints of a detector that has them."""
    nothing = [None] * len(instances)
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else nothing
    keypoints = instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else nothing
    shapes = [Shape(*own) for own in zip(masks, keypoints)]
    return shapes if any(part is not None for shape in shapes for part in shape) else []


def _skeleton(cfg: CfgNode) -> list[tuple[int, int]]:
    """Pairs of keypoints that the data set connects."""
    known = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    names = {name: number for number, name in enumerate(known.get("keypoint_names") or ())}
    rules = known.get("keypoint_connection_rules") or ()
    return [(names[one], names[other]) for one, other, *_ in rules if one in names and other in names]


def detector_gallery(networks: Sequence[Network], most: int, photographs: bool = True) -> PackedGallery:
    """The images of the data set that the first network is evaluated on, evenly spread if there are more than `most`.

    Args:
        networks: on one data set; the adaptive ones have blocks of the same names. Their `seconds` are filled.
        most: images.
        photographs: whether they are shown, or white in their place.

    Raises:
        InputError: an image cannot be read.
    """
    cfg = networks[0].cfg
    dataset = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    gallery = Gallery(
        views=[View(network.name, budget) for network in networks for budget in network.budgets],
        layers=_layers(networks),
        numbers=_NUMBERS,
        classes=class_names(cfg) or [f"class {number}" for number in range(count)],
        expected=len(chosen),
        skeleton=_skeleton(cfg),
    )
    for index in tqdm(chosen, desc="images", unit="image", disable=None):  # silent where stderr is no terminal
        entry = dataset[index]
        pixels = read_checked(Path(entry["file_name"]), "RGB")
        found = [one for network in networks for one in network.look(pixels)]
        image = pixels if photographs else without_photograph(pixels)
        gallery.add(Path(entry["file_name"]).name, image, found, _annotated(entry))
    for network in networks:
        del network.seconds[:1]  # packs weights, compiles, ...
    return gallery.packed(note=looking_note(len(chosen), len(dataset), [network.budgets for network in networks]))


def _layers(networks: Sequence[Network]) -> list[Layer]:
    adaptive = next((network for network in networks if network.adaptive), None)
    if adaptive is None:
        return []
    blocks = next(list(part.blocks) for part in adaptive.predictor.model.modules() if isinstance(part, SACTBackbone))
    together = Layer("all blocks", range(len(blocks)))
    return [together, *(Layer(name, (number,)) for number, name in enumerate(blocks))]


def _annotated(entry: dict[str, Any]) -> list[Box]:
    boxes = []
    for one in entry.get("annotations", ()):
        x, y, width, height = BoxMode.convert(list(one["bbox"]), one["bbox_mode"], BoxMode.XYWH_ABS)
        boxes.append(Box(x, y, width, height, one["category_id"]))
    return boxes

"""A trained detector with different numbers of proposals: what each costs, and what it finds."""

import math
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from torch import Tensor

from sact_det.base.markdown import markdown_table
from sact_det.benchmark.quality import evaluation_key
from sact_det.benchmark.timing import synchronize
from sact_det.detection.box_evaluator import BoxEvaluator
from sact_det.detection.evaluator import PonderEvaluator
from sact_det.detection.meta_arch import SACTGeneralizedRCNN
from sact_det.detection.proposals import carry_mass
from sact_det.detection.reference import DetectorReference
from sact_det.detection.rpn_head import deciding_blocks
from sact_det.engine.priced import report
from sact_det.engine.reference import Reference
from sact_det.experiments.progress import Progress
from sact_det.rule import ledger

Value = TypeVar("Value")

FOUND = 0.5  # IoU from which on a proposal has found an object


class Setting(NamedTuple):
    """A number of proposals: the first `most` of every image, or those that carry a share of their objectness.

    `positions` are those of anchors, a MODEL.SACT.RPN_POSITIONS; "": those of the config.
    """

    most: Optional[int] = None
    mass: Optional[float] = None
    positions: str = ""

    @property
    def name(self) -> str:
        """As folders have it."""
        own = f"k_{self.most}" if self.mass is None else f"mass_{self.mass:g}"
        return f"{self.positions}_{own}" if self.positions else own

    def count(self, objectness_logits: Tensor) -> int:
        """How many of an image's proposals, which are sorted, are kept."""
        if self.mass is None:
            return min(self.most or 0, len(objectness_logits))
        return int(carry_mass(objectness_logits, self.mass).sum())


class ProposalSweep:
    """A detector on a data set, image by image, under several settings at once.

    Settings of the same positions differ behind NMS alone, so that an image meets extractor and RPN once for all of
    them. The box head runs, and is timed, on every number of proposals that some setting keeps; the settings take turns
    in who is first.

    Args:
        cfg: of the detector; MODEL.RPN.POST_NMS_TOPK_TEST is the largest of the settings' numbers, or more.
        model: in evaluation mode.
        dataset_name: a registered data set.
        settings: unlike each other.
        output: a folder; each setting's detections and account go to OUTPUT/NAME. OUTPUT/progress.jsonl has what is
            measured of every image: another sweep of the same config and weights, on as many threads, goes on from it.

    Raises:
        InputError: there are no such positions (sact_det/detection/rpn_head.py).
    """

    def __init__(
        self, cfg: CfgNode, model: SACTGeneralizedRCNN, dataset_name: str, settings: Sequence[Setting], output: Path
    ):
        self.model, self.settings, self.dataset_name = model, list(settings), dataset_name
        self._blocks = {setting.positions: _deciding_blocks(cfg, setting.positions) for setting in settings}
        self._objects = {d["image_id"]: _boxes(d) for d in DatasetCatalog.get(dataset_name)}
        reference, detector = Reference.from_config(cfg), DetectorReference.from_config(cfg)
        self._evaluators: dict[Setting, tuple[Any, Any]] = {}
        for setting in settings:
            folder = str(output / setting.name)
            ponder = PonderEvaluator(dataset_name, reference, folder, detector)
            self._evaluators[setting] = (BoxEvaluator(dataset_name, folder), ponder)
        self._rows: list[dict[str, Any]] = []
        self._progress = Progress(output / "progress.jsonl", _key(cfg, dataset_name))
        self._known: dict[tuple[Any, str], dict[str, Any]] = {}
        for value in self._progress.known:
            before = self._known.setdefault((value["image_id"], value["positions"]), value)
            before["settings"].update(value["settings"])
        self._is_warm = False

    def process(self, item: dict[str, Any]) -> None:
        """Takes an image of the data set, a dict of the test loader, and measures what is not known of it.

        The first one that is measured runs once before, untimed.
        """
        number = len(self._rows) // len(self._blocks)
        for positions in _turned(list(self._blocks), number):
            settings = [setting for setting in self.settings if setting.positions == positions]
            known = self._known.get((item["image_id"], positions), {"settings": {}})
            missing = [setting for setting in settings if setting.name not in known["settings"]]
            if missing:
                found = self._measure(item, positions, missing)
                self._progress.add(found)
                known = {**found, **known, "settings": {**known["settings"], **found["settings"]}}
            row = {key: known[key] for key in ("image_id", "positions", "found_at", "seconds")}
            for setting in settings:
                own = known["settings"][setting.name]
                row[setting.name] = own["numbers"]
                for evaluator, kept in zip(self._evaluators[setting], own["rows"]):
                    evaluator.take(kept)
            self._rows.append(row)

    @torch.no_grad()
    def _measure(self, item: dict[str, Any], positions: str, settings: Sequence[Setting]) -> dict[str, Any]:
        """What settings of some positions find in an image, as plain values."""
        head = self.model.proposal_generator.rpn_head
        head.blocks = self._blocks[positions]
        if not self._is_warm:
            self.model([item])
            self._is_warm = True
        device, images = self.model.device, self.model.preprocess_image([item])
        with ledger.open(images.image_sizes) as front:
            in_front, (features, proposals) = _timed(device, self._propose, images)
        ran = {}
        kept = {setting: setting.count(proposals.objectness_logits) for setting in settings}
        for count in _turned(sorted(set(kept.values())), len(self._rows)):
            with ledger.open(images.image_sizes) as spent:
                for part, (record,) in front.items():
                    ledger.enter(part, record)
                ledger.enter_proposals([count])
                seconds, outputs = _timed(device, self._detect, item, images, features, proposals[:count])
            report(outputs, spent, images.image_sizes)
            ran[count] = (seconds, outputs[0])
        by_setting = {}
        for setting, count in kept.items():
            seconds, output = ran[count]
            by_setting[setting.name] = {
                "numbers": {"proposals": count, "regions": output["regions"], "seconds": seconds},
                "rows": [evaluator.row(item, output) for evaluator in self._evaluators[setting]],
            }
        return {
            "image_id": item["image_id"],
            "positions": positions,
            "found_at": self._found_at(item, proposals),
            "seconds": in_front,
            "settings": by_setting,
        }

    def _propose(self, images: Any) -> tuple[dict[str, Tensor], Instances]:
        features = self.model.backbone(images.tensor)
        (proposals,), _ = self.model.proposal_generator(images, features, None)
        return features, proposals

    def _detect(
        self, item: dict[str, Any], images: Any, features: dict[str, Tensor], proposals: Instances
    ) -> list[dict[str, Any]]:
        found, _ = self.model.roi_heads(images, features, [proposals], None)
        return self.model._postprocess(found, [item], images.image_sizes)

    def _found_at(self, item: dict[str, Any], proposals: Instances) -> list[Optional[int]]:
        """For every object of the image how many proposals, best first, it takes to find it; None: all do not."""
        height, width = proposals.image_size
        boxes = proposals.proposal_boxes.to("cpu").clone()
        boxes.scale(item["width"] / width, item["height"] / height)
        overlaps = pairwise_iou(self._objects[item["image_id"]], boxes) >= FOUND
        return [int(own.int().argmax()) + 1 if own.any() else None for own in overlaps]

    def evaluate(self) -> dict[str, Any]:
        """What was found and spent, of at least one image.

        Returns:
            dataset; images; `rows`, the numbers of every image (under each of several positions); `settings`, each
            with name, most, mass, positions, AP, AP50, recall (percent of the objects, crowds left out, that have a
            proposal with IoU 0.5 or more), regions and regions_std over images, gflops of the whole detector,
            flops_percent of a plain one with as many regions, seconds an image, and box_head_seconds of them.
        """
        results = [self._result(setting) for setting in self.settings]
        images = len(self._rows) // len(self._blocks)
        return {"dataset": self.dataset_name, "images": images, "settings": results, "rows": self._rows}

    def _result(self, setting: Setting) -> dict[str, Any]:
        boxes, ponder = (own for evaluator in self._evaluators[setting] for own in evaluator.evaluate().values())
        rows = [row for row in self._rows if row["positions"] == setting.positions]
        own = [row[setting.name] for row in rows]
        found = [at is not None and at <= row[setting.name]["proposals"] for row in rows for at in row["found_at"]]
        behind = float(np.mean([row["seconds"] for row in own]))
        return {
            "name": setting.name,
            **setting._asdict(),
            "AP": boxes["AP"],
            "AP50": boxes["AP50"],
            "recall": 100 * float(np.mean(found)) if found else math.nan,
            "regions": ponder["regions"],
            "regions_std": float(np.std([row["regions"] for row in own])),
            "gflops": ponder["detector_gflops"],
            "flops_percent": ponder["detector_flops_percent"],
            "seconds": behind + float(np.mean([row["seconds"] for row in rows])),
            "box_head_seconds": behind,
        }


def sweep_table(content: dict[str, Any]) -> str:
    """Markdown: a line for every setting of `ProposalSweep.evaluate`."""
    heads = ("proposals", "AP", "AP50", "recall at IoU 0.5 (%)", "regions", "GFLOPs", "s / image", "of them box head")
    rows = []
    for own in content["settings"]:
        what = f"first {own['most']}" if own["mass"] is None else f"mass {own['mass']:g}"
        what += f", {own['positions']} positions" if own["positions"] else ""
        quality = ("-" if math.isnan(own[key]) else f"{own[key]:.2f}" for key in ("AP", "AP50", "recall"))
        regions = f"{own['regions']:.1f} ± {own['regions_std']:.1f}"
        seconds = (f"{own[key]:.4f}" for key in ("seconds", "box_head_seconds"))
        rows.append([what, *quality, regions, f"{own['gflops']:.2f}", *seconds])
    return markdown_table(heads, rows)


def _deciding_blocks(cfg: CfgNode, positions: str) -> Optional[list[str]]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SACT.RPN_POSITIONS = positions or cfg.MODEL.SACT.RPN_POSITIONS
    return deciding_blocks(cfg)


def _key(cfg: CfgNode, dataset_name: str) -> str:
    """Tells sweeps apart that may find, or take, something else."""
    return f"{evaluation_key(cfg, dataset_name)} {cfg.MODEL.SACT.EXECUTION} {torch.get_num_threads()}"


def _boxes(dataset_dict: dict[str, Any]) -> Boxes:
    """The objects of an image that are no crowds, in its own pixels."""
    own = [note for note in dataset_dict.get("annotations", []) if not note.get("iscrowd", 0)]
    corners = [BoxMode.convert(list(note["bbox"]), note["bbox_mode"], BoxMode.XYXY_ABS) for note in own]
    return Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))


def _timed(device: torch.device, run: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """The seconds that a call takes, and what it returns."""
    synchronize(device)
    start = time.perf_counter()
    value = run(*args)
    synchronize(device)
    return time.perf_counter() - start, value


def _turned(values: Sequence[Value], number: int) -> list[Value]:
    """The values in their order, from another one on for every number."""
    first = number % len(values)
    return [*values[first:], *values[:first]]

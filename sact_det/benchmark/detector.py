"""A whole detector, end to end, and the shares of extractor and pyramid, of region proposals and of heads."""

import copy
import time
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, Callable, Optional, Sequence

import torch
from torch import Tensor

from sact_det.benchmark.dense_head import DenseHead
from sact_det.benchmark.executions import Executions
from sact_det.benchmark.image_part import ImagePart, has_dense_head, install_image_part, is_c4, take_over
from sact_det.benchmark.networks import AdaptivePart
from sact_det.benchmark.parts import check_features, own_name
from sact_det.benchmark.regions import GivenRegions
from sact_det.benchmark.report import Entry, Table, with_parts
from sact_det.benchmark.rivals import Rival, build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate, synchronize
from sact_det.benchmark.trained import detector_part
from sact_det.detection.reference import DetectorReference
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.execution import set_execution
from sact_det.rule import ledger


class TimedDetector:
    """A detector that measures how long the parts of its inference take.

    Args:
        model: whose heads are watched.
        device: waited for at the end of every part.

    Attributes:
        parts: their names, in order; the first is what rivals run as one network (image_part.py).
        regions: of each image of the last run, those that its box head met; empty if there is none.
    """

    def __init__(self, model: Any, device: torch.device):
        self.model = model
        self._device = device
        self._last = 0.0
        self.regions: list[int] = []
        self._dense = has_dense_head(model)
        self.parts: tuple[str, ...]
        if self._dense:
            self.parts = ("extractor + FPN + head", "boxes")
            model.anchor_generator.register_forward_pre_hook(lambda *_: self._lap(self.parts[0]))
        else:
            self.parts = ("extractor" if is_c4(model) else "extractor + FPN", "proposals", "box head")
            generator, heads = model.proposal_generator, model.roi_heads
            generator.register_forward_pre_hook(lambda *_: self._lap(self.parts[0]))
            generator.register_forward_hook(lambda *_: self._lap("proposals"))
            heads.register_forward_pre_hook(lambda _, args: self.regions.extend(map(len, args[2])))
            heads.register_forward_hook(lambda *_: self._lap("box head"))
        self._laps = dict.fromkeys(self.parts, 0.0)

    def run(self, images: Sequence[Tensor], setting: Setting, postprocess: bool, batch: int = 1) -> dict[str, float]:
        """Detects in images [3, H, W], `batch` at a time. Returns the seconds of each of `parts`, of all of them.

        Without `postprocess` a detector of proposals leaves its boxes in the pixels of the network's input.
        """
        self._laps = dict.fromkeys(self.parts, 0.0)
        self.regions.clear()
        for first in range(0, len(images), batch):
            self._last = time.perf_counter()
            inputs = [{"image": image} for image in images[first : first + batch]]
            with setting.autocast():
                if self._dense:
                    self.model(inputs)
                    self._lap("boxes")
                else:
                    self.model.inference(inputs, do_postprocess=postprocess)
        return self._laps

    def _lap(self, part: str) -> None:
        synchronize(self._device)
        now = time.perf_counter()
        self._laps[part] += now - self._last
        self._last = now


def rival_detector(detector: Any, rival: Rival, head: Optional[DenseHead]) -> Any:
    """A copy of a detector with a rival's image part; everything behind it in PyTorch, dense.

    Args:
        detector: adaptive or plain.
        rival: of its ImagePart.
        head: of a C4 detector, another block 4, which copies may share.
    """
    detector = copy.deepcopy(detector)
    install_image_part(detector, *take_over(detector, rival))
    if head is not None:
        detector.roi_heads.res5, detector.roi_heads.rejection = head, None
        detector.roi_heads.shortcut_pooler = None  # a rival's block 4 makes its own products
    for part in detector.modules():
        if isinstance(part, SACTRPNHead):
            part.blocks = None  # nothing halts in front of it
    set_execution(detector, "dense")
    return detector


def set_up(part: AdaptivePart, whole: Executions, execution: str, depths: Optional[Sequence[Tensor]]) -> None:
    """Sets the execution of a whole detector, and prescribes its extractor's masks; None leaves them its own."""
    whole.choose(execution)
    part.prescribe(depths)


def measure_detector(
    title: str,
    detector: Any,
    images: Sequence[Tensor],
    ratios: Sequence[Optional[float]],
    setting: Setting,
    regions: Optional[int] = None,
) -> Table:
    """Inference of a detector beside detectors whose image part (image_part.py) is a rival and whose box head is plain.

    FLOPs and their ratios are the extractor's and, beside them, the whole detector's. The rivals neither count FLOPs
    nor postprocess.

    Args:
        title: of the table.
        detector: in evaluation mode, on the device.
        images: [3, H, W] of one size, in [0, 255]. A run takes them one after the other.
        ratios: FLOP ratios to prescribe masks for (those of the first image serve all); None: the masks of the
            extractor's own branches.
        setting: device, precision, rounds and who takes part.
        regions: how many regions every candidate's box head gets, the same boxes for all; None: each its own proposals,
            if it has any.

    Raises:
        InputError: a FLOP ratio is out of reach, or the detector's halting cannot be prescribed.
        Disagreement: an execution computes other features than the masked dense one.
    """
    with torch.no_grad(), setting.activated():
        reference, has_proposals = DetectorReference.of(detector), not has_dense_head(detector)
        if regions is not None and has_proposals:
            detector.proposal_generator = GivenRegions(detector.proposal_generator, regions, setting.seed)
        part = detector_part(detector)
        inputs = [detector.preprocess_image([{"image": image}]).tensor for image in images]
        size = images[0].shape[1], images[0].shape[2]
        masks = part.masks((*inputs[0].shape[:2], *size), ratios, setting.seed)  # the extractor does without padding
        rivals, differences, absent = build_rivals(ImagePart(detector), inputs[0], setting, setting.rivals)
        entries: list[Entry] = []
        own_regions = [0] * len(images)
        dense_flops = len(images) * reference.flops(size)["backbone"]
        laps: dict[str, list[dict[str, float]]] = {}

        def candidate(name: str, timed: TimedDetector, own: bool, **prepare: Callable[[], None]) -> Candidate:
            laps[name] = []
            return Candidate(name, lambda _: laps[name].append(timed.run(images, setting, own)), **prepare)

        candidates = []
        head = DenseHead(detector.roi_heads.res5, setting) if is_c4(detector) else None
        for rival in rivals:
            plain = TimedDetector(rival_detector(detector, rival, head), setting.device)
            plain.run(images, setting, False)  # the box head finds out what is fastest
            own_regions = plain.regions or own_regions
            entry = Entry(rival.name, True, difference=differences[rival.name], detector_ratio=1.0)
            entries.append(replace(entry, regions=mean(own_regions)))
            candidates.append(candidate(rival.name, plain, False))
        own_regions = list(own_regions)
        timed, whole = TimedDetector(detector, setting.device), Executions(detector)
        for ratio, depths in masks.items():
            set_up(part, whole, "dense", depths)
            expected = [_outputs(detector, x, size) for x in inputs]
            for execution in setting.executions:
                name = own_name(ratio, execution)
                prepare = partial(set_up, part, whole, execution, depths)
                prepare()
                with setting.autocast():
                    features = [_outputs(detector, x, size) for x in inputs]
                    timed.regions.clear()
                    outputs = [detector([{"image": image}])[0] for image in images]
                difference = max(map(relative_difference, features, expected))
                if setting.precision == "fp32":
                    check_features(name, difference, setting)
                flop_ratio = sum(output["flops"]["backbone"] for output in outputs) / dense_flops
                proposed = list(timed.regions) or [0] * len(images)
                found = [number - output["rejected_regions"] for number, output in zip(proposed, outputs)]
                plain_regions = own_regions if rivals else proposed
                flops = [reference.flops_with(output["flops"], size, number) for output, number in zip(outputs, found)]
                plain_flops = [reference.flops(size, number) for number in plain_regions]
                share = sum(own["total"] for own in flops) / sum(own["total"] for own in plain_flops)
                entries.append(Entry(name, False, flop_ratio, difference, ratio, execution, {}, share, mean(found)))
                candidates.append(candidate(name, timed, True, prepare=prepare))
        times = setting.times(candidates, title)
    entries = [with_parts(entry, laps[entry.name][-setting.rounds :]) for entry in entries]  # without the warm-up
    remarks = () if head is None else head.remarks
    return Table(title, inputs[0].shape, dense_flops, entries, times, absent, len(inputs), remarks)


def _outputs(detector: Any, images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Features of the backbone and, if there is one, what the dense head makes of them: one image, perhaps padded."""
    with ledger.open([size]):
        features = detector.backbone(images)
    if not has_dense_head(detector):
        return list(features.values())
    logits, deltas = detector.head([features[name] for name in detector.head_in_features])
    return [*features.values(), *logits, *deltas]

"""A whole detector, end to end, and the shares of extractor, region proposals and box head."""

import copy
import time
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import Tensor, nn

from sact_det.benchmark.dense_head import DenseHead
from sact_det.benchmark.executions import Executions
from sact_det.benchmark.networks import AdaptivePart, dense_part
from sact_det.benchmark.parts import check_features, own_name
from sact_det.benchmark.regions import GivenRegions
from sact_det.benchmark.report import Entry, Table, with_parts
from sact_det.benchmark.rivals import Rival, build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate, synchronize
from sact_det.benchmark.trained import detector_part
from sact_det.detection.meta_arch import SACTGeneralizedRCNN
from sact_det.detection.reference import DetectorReference
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.execution import set_execution

PARTS = ("extractor", "proposals", "box head")


class DenseBackbone(Backbone):
    """A rival in the place of the extractor.

    Args:
        extractor: normalised images [N, 3, H, W] -> "res4".
        norm: before "res4_relu".
    """

    def __init__(self, extractor: Callable[[Tensor], Tensor], norm: nn.Module):
        super().__init__()
        self._extractor = extractor
        self.res4_norm = norm

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """SACTBackbone.forward for images without padding, but nothing is entered into a ledger."""
        x = self._extractor(images)
        return {"res4": x, "res4_relu": F.relu(self.res4_norm(x))}


class TimedDetector:
    """A detector that measures how long the parts of its inference take.

    Args:
        model: whose proposal generator and box head are watched.
        device: waited for at the end of every part.
    """

    def __init__(self, model: SACTGeneralizedRCNN, device: torch.device):
        self.model = model
        self._device = device
        self._laps = dict.fromkeys(PARTS, 0.0)
        self._last = 0.0
        self.regions: list[int] = []  # of each image of the last run
        model.roi_heads.register_forward_pre_hook(lambda _, args: self.regions.extend(map(len, args[2])))
        model.proposal_generator.register_forward_pre_hook(lambda *_: self._lap("extractor"))
        model.proposal_generator.register_forward_hook(lambda *_: self._lap("proposals"))
        model.roi_heads.register_forward_hook(lambda *_: self._lap("box head"))

    def run(self, images: Sequence[Tensor], setting: Setting, postprocess: bool) -> dict[str, float]:
        """Detects in one image [3, H, W] after the other. Returns the seconds of each of PARTS."""
        self._laps = dict.fromkeys(PARTS, 0.0)
        self.regions.clear()
        for image in images:
            self._last = time.perf_counter()
            with setting.autocast():
                self.model.inference([{"image": image}], do_postprocess=postprocess)
        return self._laps

    def _lap(self, part: str) -> None:
        synchronize(self._device)
        now = time.perf_counter()
        self._laps[part] += now - self._last
        self._last = now


def rival_detector(detector: SACTGeneralizedRCNN, rival: Rival, head: DenseHead) -> SACTGeneralizedRCNN:
    """A copy of a detector with a rival as extractor and another block 4, which copies may share."""
    detector = copy.deepcopy(detector)
    detector.backbone = DenseBackbone(rival, detector.backbone.res4_norm)
    detector.roi_heads.res5, detector.roi_heads.rejection = head, None
    detector.roi_heads.shortcut_pooler = None  # a rival's block 4 makes its own products
    for part in detector.modules():
        if isinstance(part, SACTRPNHead):
            part.blocks = None  # nothing halts in front of it
    for part in (detector.proposal_generator, detector.roi_heads):
        set_execution(part, "dense")  # the RPN's convolution and RoIAlign in PyTorch
    return detector


def set_up(part: AdaptivePart, heads: Executions, execution: str, depths: Optional[Sequence[Tensor]]) -> None:
    """Sets the execution of extractor and heads, and prescribes the extractor's masks; None leaves them its own."""
    part.set_up(execution, depths)
    heads.choose(execution)


def measure_detector(
    title: str,
    detector: SACTGeneralizedRCNN,
    images: Sequence[Tensor],
    ratios: Sequence[Optional[float]],
    setting: Setting,
    regions: Optional[int] = None,
) -> Table:
    """Inference of a detector beside detectors whose extractor is a rival and whose box head is plain.

    FLOPs and their ratios are the extractor's and, beside them, the whole detector's. The rivals neither count FLOPs
    nor postprocess.

    Args:
        title: of the table.
        detector: in evaluation mode, on the device.
        images: [3, H, W] of one size, in [0, 255]. A run takes them one after the other.
        ratios: FLOP ratios to prescribe masks for (those of the first image serve all); None: the masks of the
            extractor's own branches.
        setting: device, precision, rounds and who takes part.
        regions: how many regions every candidate's box head gets, the same boxes for all; None: each its own proposals.

    Raises:
        InputError: a FLOP ratio is out of reach, or the detector's halting cannot be prescribed.
        Disagreement: an execution computes other features than the masked dense one.
    """
    with torch.no_grad(), setting.activated():
        reference = DetectorReference.of(detector)
        if regions is not None:
            detector.proposal_generator = GivenRegions(detector.proposal_generator, regions, setting.seed)
        part = detector_part(detector)
        inputs = [detector.preprocess_image([{"image": image}]).tensor for image in images]
        masks = part.masks(inputs[0].shape, ratios, setting.seed)
        rivals, differences, absent = build_rivals(dense_part(part), inputs[0], setting, setting.rivals)
        entries: list[Entry] = []
        size, own_regions = (inputs[0].shape[2], inputs[0].shape[3]), [0] * len(images)
        dense_flops = sum(part.dense_flops(x.shape) for x in inputs)
        laps: dict[str, list[dict[str, float]]] = {}

        def candidate(name: str, timed: TimedDetector, own: bool, **prepare: Callable[[], None]) -> Candidate:
            laps[name] = []
            return Candidate(name, lambda _: laps[name].append(timed.run(images, setting, own)), **prepare)

        candidates = []
        head = DenseHead(detector.roi_heads.res5, setting)
        for rival in rivals:
            plain = TimedDetector(rival_detector(detector, rival, head), setting.device)
            plain.run(images, setting, False)  # the box head finds out what is fastest
            own_regions = list(plain.regions)
            entry = Entry(rival.name, True, difference=differences[rival.name], detector_ratio=1.0)
            entries.append(replace(entry, regions=mean(own_regions)))
            candidates.append(candidate(rival.name, plain, False))
        timed = TimedDetector(detector, setting.device)
        heads = Executions(nn.ModuleList([detector.proposal_generator, detector.roi_heads]))
        for ratio, depths in masks.items():
            set_up(part, heads, "dense", depths)
            expected = [detector.backbone(x)["res4"] for x in inputs]
            for execution in setting.executions:
                name = own_name(ratio, execution)
                prepare = partial(set_up, part, heads, execution, depths)
                prepare()
                with setting.autocast():
                    features = [detector.backbone(x)["res4"] for x in inputs]
                    outputs = [detector.inference([{"image": image}])[0] for image in images]
                difference = max(map(relative_difference, features, expected))
                if setting.precision == "fp32":
                    check_features(name, difference, setting)
                flop_ratio = sum(output["flops"]["backbone"] for output in outputs) / dense_flops
                found = [output["regions"] for output in outputs]
                proposed = [output["regions"] + output["rejected_regions"] for output in outputs]
                plain_regions = own_regions if rivals else proposed
                flops = [reference.flops_with(output["flops"], size, output["regions"]) for output in outputs]
                plain_flops = [reference.flops(size, number) for number in plain_regions]
                whole = sum(own["total"] for own in flops) / sum(own["total"] for own in plain_flops)
                entries.append(Entry(name, False, flop_ratio, difference, ratio, execution, {}, whole, mean(found)))
                candidates.append(candidate(name, timed, True, prepare=prepare))
        times = setting.times(candidates, title)
    entries = [with_parts(entry, laps[entry.name][-setting.rounds :]) for entry in entries]  # without the warm-up
    return Table(title, inputs[0].shape, dense_flops, entries, times, absent, len(inputs), head.remarks)

"""A trained plain detector in the programs that run it fastest."""

from functools import partial
from itertools import product
from typing import Iterator, NamedTuple, Optional, Sequence

from detectron2.config import CfgNode
from torch import Tensor, nn

from sact_det.benchmark.dense_head import DenseHead
from sact_det.benchmark.detector import TimedDetector
from sact_det.benchmark.fastest import FastestProgram, power_of_two
from sact_det.benchmark.image_part import (
    ImagePart,
    ImageParts,
    has_dense_head,
    install_image_part,
    is_c4,
    own_image_part,
    take_over,
)
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times
from sact_det.detection.predictor import load_detector
from sact_det.execution import set_execution

OWN = "auto"  # the execution in which this package computes a plain network fastest
_TORCH = "dense"
_RIVAL = "rival"
_TRIALS = 3


class Programs(NamedTuple):
    """What computes a plain detector's parts: OWN, PyTorch, or the fastest of the rivals.

    Attributes:
        image: what is computed on a whole image (image_part.py).
        regions: RoIAlign and, on a pyramid, the box heads behind it.
        head: block 4 of a C4 detector.
    """

    image: str = OWN
    regions: str = OWN
    head: str = OWN


class PlainDetector:
    """A plain detector whose image part and block 4 can be exchanged for the rivals of rivals.py and dense_head.py.

    This package's own kernels compete with them: they are a dense program, too, and may be the fastest.

    Args:
        cfg: with its weights.
        setting: device, precision and which rivals there are; without any, only this package's own programs run.

    Attributes:
        model: the detector.
        timed: measures it.

    Raises:
        InputError: the config is of something else, or its weights cannot be used.
    """

    def __init__(self, cfg: CfgNode, setting: Setting):
        self.model = load_detector(cfg)
        set_execution(self.model, OWN)
        self._setting = setting
        self._chosen: dict[int, Programs] = {}
        head = self.model.roi_heads.res5 if is_c4(self.model) else None
        self._images: dict[str, ImageParts] = {OWN: own_image_part(self.model)}
        self._heads: dict[str, Optional[nn.Module]] = {OWN: head}
        self._programs: dict[str, FastestProgram] = {}
        if setting.rivals:
            what = "extractor" if is_c4(self.model) else "extractor and pyramid"
            program = FastestProgram(what, ImagePart(self.model), setting, setting.rivals, alike=lambda shape: None)
            self._images[_RIVAL] = take_over(self.model, program)
            self._programs = {"image": program}
            if head is not None and not head.block4.reads_products:  # rivals of block 4 make their own, from regions
                self._heads[_RIVAL] = dense_head = DenseHead(head, setting, alike=power_of_two)
                self._programs["head"] = dense_head.program
        self.timed = TimedDetector(self.model, setting.device)

    @property
    def remarks(self) -> list[str]:
        """What ran parts, and in what time, a line for each time it was asked."""
        return [remark for program in self._programs.values() for remark in program.remarks]

    @property
    def absent(self) -> dict[str, str]:
        """Why rivals do not take part, by name."""
        return {name: reason for program in self._programs.values() for name, reason in program.absent.items()}

    def install(self, programs: Programs, proposals: int) -> None:
        """Says what computes the detector's parts, and how many regions an image has at most."""
        install_image_part(self.model, *self._images[programs.image])
        if has_dense_head(self.model):
            return
        if is_c4(self.model):
            self.model.roi_heads.res5 = self._heads[programs.head]
            set_execution(self.model.roi_heads.pooler, programs.regions)
        else:
            set_execution(self.model.roi_heads, programs.regions)
        self.model.proposal_generator.post_nms_topk[False] = proposals

    def fastest(self, images: Sequence[Tensor], proposals: int) -> Programs:
        """The programs with which so many regions take the least time; found out with the first batch of [3, H, W]."""
        if proposals not in self._chosen:
            found = {str(one): one for one in self._combinations()}
            candidates = [
                Candidate(name, lambda _: self.run(images), partial(self.install, one, proposals))
                for name, one in found.items()
            ]
            for candidate in candidates:  # rivals find out which of them is fastest, and are built
                candidate.prepare()
                candidate.run(None)
            times = interleaved_times(candidates, _TRIALS, device=self._setting.device)
            self._chosen[proposals] = found[min(found, key=lambda name: Spread.of(times[name]).median)]
        return self._chosen[proposals]

    def _combinations(self) -> Iterator[Programs]:
        """Rivals' features and rivals of block 4 go with our RoIAlign, which leaves rows, and with PyTorch's."""
        for image, head in product(self._images, self._heads):
            yield Programs(image, OWN, head)
            if head != OWN or (image != OWN and not is_c4(self.model) and not has_dense_head(self.model)):
                yield Programs(image, _TORCH, head)

    def run(self, images: Sequence[Tensor]) -> dict[str, float]:
        """Detects in a batch of images [3, H, W]. Returns the seconds of each part, as TimedDetector."""
        return self.timed.run(images, self._setting, postprocess=True, batch=len(images))

    def names(self, programs: Programs) -> str:
        """What has computed the image part and, of a C4 detector, block 4 last, in these programs."""
        parts = {"image": programs.image, **({"head": programs.head} if is_c4(self.model) else {})}
        return " + ".join(own if own == OWN else self._programs[part].ran for part, own in parts.items())

    def forget(self) -> None:
        """Lets go of programs for shapes that have not been met since it was called last."""
        for program in self._programs.values():
            program.forget()

"""The trainer of detectors: loaders, evaluators, Table 1."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluators

from sact_det.detection import loader
from sact_det.detection.box_evaluator import COCO_SIGMAS, BoxEvaluator
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.detection.class_names import class_names
from sact_det.detection.config_kinds import is_panoptic
from sact_det.detection.evaluator import PonderEvaluator, table_1_row
from sact_det.detection.panoptic_evaluator import PanopticEvaluator
from sact_det.detection.reference import DetectorReference
from sact_det.engine.reference import Reference
from sact_det.engine.spec import network_title
from sact_det.engine.trainer import Trainer


class DetectionTrainer(Trainer):
    """Trainer of SACTGeneralizedRCNN, SACTRetinaNet and SACTPanopticFPN."""

    checkpointer_class = DetectorCheckpointer
    training_sizes = ("SOLVER.IMS_PER_BATCH", "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN")
    test_sizes = ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
    build_train_loader = staticmethod(loader.build_train_loader)
    build_test_loader = staticmethod(loader.build_test_loader)
    build_validation_loader = staticmethod(loader.build_validation_loader)
    class_names = staticmethod(class_names)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        """mAP of boxes and of what else the heads find, and FLOPs; files go to OUTPUT_DIR/inference/<data set>."""
        folder = str(Path(cfg.OUTPUT_DIR) / "inference" / dataset_name)
        detector = DetectorReference.from_config(cfg)
        sigmas = (cfg.TEST.KEYPOINT_OKS_SIGMAS or COCO_SIGMAS) if cfg.MODEL.KEYPOINT_ON else None
        panoptic = [PanopticEvaluator(dataset_name, folder)] if is_panoptic(cfg) else []
        ponder = PonderEvaluator(dataset_name, Reference.from_config(cfg), output_dir=folder, detector=detector)
        ponder.budget = cfg.MODEL.SACT.BUDGET or None
        boxes = BoxEvaluator(dataset_name, folder, masks=cfg.MODEL.MASK_ON, sigmas=sigmas)
        return DatasetEvaluators([*panoptic, boxes, ponder])

    @classmethod
    def table_row(cls, cfg: CfgNode, results: dict[str, Any]) -> str:
        """The paper's Table 1 for one model."""
        return table_1_row(network_title(cfg), results)

"""The trainer of classifiers: loaders, evaluator, table."""

from pathlib import Path
from typing import Any, Optional

from detectron2.config import CfgNode
from typing_extensions import override

from sact_det.classification import loader
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.class_names import names_of_data
from sact_det.classification.evaluator import ClassificationEvaluator, accuracy_table
from sact_det.classification.meta_arch import SACTClassifier  # noqa: F401  (registers it)
from sact_det.engine.reference import Reference
from sact_det.engine.spec import network_title
from sact_det.engine.trainer import Trainer
from sact_det.network.classifier import FAMILIES


class ClassificationTrainer(Trainer):
    """Trainer of a SACTClassifier; its tables show accuracy against FLOPs."""

    checkpointer_class = ClassifierCheckpointer
    training_sizes = ("SOLVER.IMS_PER_BATCH", "INPUT.CLASSIFICATION.SIZE_TRAIN")
    test_sizes = ("INPUT.CLASSIFICATION.BATCH_SIZE_TEST", "INPUT.CLASSIFICATION.SIZE_TEST")
    build_train_loader = staticmethod(loader.build_train_loader)
    build_test_loader = staticmethod(loader.build_test_loader)
    build_validation_loader = staticmethod(loader.build_test_loader)  # which has the labels

    @classmethod
    @override
    def class_names(cls, cfg: CfgNode) -> Optional[list[str]]:
        return names_of_data(cfg)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ClassificationEvaluator:
        """Accuracy and FLOPs; files go to OUTPUT_DIR/inference/<data set>."""
        folder = str(Path(cfg.OUTPUT_DIR) / "inference" / dataset_name)
        classifier = cfg.MODEL.CLASSIFIER
        reference = Reference.from_config(cfg, FAMILIES[classifier.FAMILY], classifier.NUM_CLASSES)
        evaluator = ClassificationEvaluator(reference, output_dir=folder)
        evaluator.budget = cfg.MODEL.SACT.BUDGET or None
        return evaluator

    @classmethod
    @override
    def table_row(cls, cfg: CfgNode, results: dict[str, Any]) -> str:
        return accuracy_table([(network_title(cfg), cfg.INPUT.CLASSIFICATION.SIZE_TEST, results["classification"])])

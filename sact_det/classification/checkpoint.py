"""What the weights of a classifier may come from."""

from typing import Any

from typing_extensions import override

from sact_det.engine.checkpoint import SACTCheckpointer


class ClassifierCheckpointer(SACTCheckpointer):
    """SACTCheckpointer of a SACTClassifier; in training, logits for other classes start fresh."""

    per_class = ("logits.",)

    @override
    def description(self) -> dict[str, Any]:
        return {**self.model.spec.describe(), "num_classes": self.model.logits.out_channels}

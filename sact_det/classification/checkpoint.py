"""What the weights of a classifier may come from."""

from typing import Any

from sact_det.engine.checkpoint import SACTCheckpointer, describe_spec


class ClassifierCheckpointer(SACTCheckpointer):
    """SACTCheckpointer of a SACTClassifier; in training, logits for other classes start fresh."""

    per_class = ("logits.",)

    def description(self) -> dict[str, Any]:
        """The metadata of a weight file."""
        return {**describe_spec(self.model.spec), "num_classes": self.model.logits.out_channels}

"""Changing between executions of one model without packing its weights anew, which no timed run must pay for."""

from torch import nn

from sact_det.execution import set_execution
from sact_det.network.plan import Plan, planned_parts


class Executions:
    """The executions of a model, each with what it has packed.

    `set_execution` alone lets go of packed weights when the execution becomes "dense".

    Args:
        model: whose stems, blocks and poolers are there to stay.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._plans: dict[str, list[Plan]] = {}

    def choose(self, execution: str) -> None:
        """set_execution; the second time with the plans of the first."""
        if execution not in self._plans:
            set_execution(self._model, execution)
            self._plans[execution] = [part.plan for part in planned_parts(self._model)]
        for part, plan in zip(planned_parts(self._model), self._plans[execution], strict=True):
            part.plan = plan

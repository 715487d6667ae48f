"""How a network is computed: plans, installed from outside, that skip the positions that have halted."""

from sact_det.execution.plan import EXECUTIONS, Executable, keep_half_states, set_execution

__all__ = ["EXECUTIONS", "Executable", "keep_half_states", "set_execution"]

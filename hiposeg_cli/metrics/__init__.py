"""Evaluation on every level from integer counts over the whole set (never averaged over images or batches).

Protocol `merged`: the coarse result is the fine prediction folded up the tree. Protocol `own`: the prediction has a map of
its own for each level; both are given then, with the share of pixels where they agree.
"""

from hiposeg_cli.metrics.back_off import BackOffCurve
from hiposeg_cli.metrics.confusion import Confusion
from hiposeg_cli.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from hiposeg_cli.metrics.scores import Absent, Scores, score
from hiposeg_cli.metrics.summary import summarize
from hiposeg_cli.metrics.tree import mistake_severity, tree_errors
from hiposeg_cli.metrics.values import none_if_nan

__all__ = [
    "PROTOCOLS", "Absent", "BackOffCurve", "Confusion", "Protocol", "Scores", "find_protocol", "mistake_severity",
    "none_if_nan", "score", "summarize", "tree_errors",
]  # fmt: skip

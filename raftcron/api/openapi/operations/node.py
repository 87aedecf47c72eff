"""Of the node itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftcron.api.openapi.operations.parts import LOCAL, Answer, Operation, one
from raftcron.api.openapi.taken import TEXT

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/livez"): Operation(
        id="live",
        summary="The process answers",
        tag="node",
        answers={200: one("Live", "it does")},
        problems=(400, 403),
    ),
    ("GET", "/readyz"): Operation(
        id="ready",
        summary="This node has caught up and knows a leader",
        tag="node",
        answers={200: one("Ready", "it is ready")},
        problems=(400, 403, 503),
    ),
    ("GET", "/metrics"): Operation(
        id="metrics",
        summary="Figures of this node for Prometheus",
        tag="node",
        answers={200: Answer("the figures", TEXT, "text/plain")},
        problems=LOCAL,
    ),
    ("GET", "/openapi.json"): Operation(
        id="openapi",
        summary="This document",
        tag="node",
        answers={200: Answer("OpenAPI 3.1", {"type": "object"})},
        problems=LOCAL,
    ),
}

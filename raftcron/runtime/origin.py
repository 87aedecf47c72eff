"""Who asks for what this task does: set by the HTTP interface for each request, read by the use-cases that write.

Only they read it.  A loop that a request happens to start inherits the context of that request, and speaks for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from raftcron.core.commands import Origin
from raftcron.errors import Fault

prefix: Final[ContextVar[str]] = ContextVar("raftcron_prefix", default="")  # what the caller may name begins with it
asking: Final[ContextVar[Origin | None]] = ContextVar("raftcron_asking", default=None)
# What is wrong with the request beside its body.  Its body is judged all the same, so that one answer names every
# fault; written is nothing.
unfit: Final[ContextVar[Sequence[Fault]]] = ContextVar("raftcron_unfit", default=())

"""Who asks for what this task does: set by the HTTP interface for each request, read by the use-cases that write.

Only they read it.  A loop that a request happens to start inherits the context of that request, and speaks for nobody.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from raftcron.core.commands import Origin

prefix: Final[ContextVar[str]] = ContextVar("raftcron_prefix", default="")  # what the caller may name begins with it
asking: Final[ContextVar[Origin | None]] = ContextVar("raftcron_asking", default=None)

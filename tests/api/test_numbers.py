"""The numbers that the contract names, where other tests set their own so as to be quick."""

from __future__ import annotations

import dataclasses

from raftcron.api import bodies
from raftcron.api.context import NodeContext
from raftcron.config.table import Settings
from raftcron.core import state
from raftcron.core.apply import jobs
from raftcron.runtime import bulk, events, reads


def test_how_long_a_node_waits() -> None:
    """A write without a leader, an answer for its own index and a read 2 s; a forwarded write 10 s."""
    defaults = {field.name: field.default for field in dataclasses.fields(NodeContext)}
    assert defaults["hold_seconds"] == 2.0
    assert reads.READ_SECONDS == 2.0
    assert defaults["request_timeout_seconds"] == 10.0
    settings = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert settings["request_timeout_ms"] == 10_000


def test_how_much_a_node_keeps() -> None:
    """Events, digests of each kind, idempotency keys and for how long."""
    assert events.EVENTS_KEPT == 100_000
    assert state.DIGESTS_KEPT == 1_024
    assert (state.KEYS_KEPT, state.KEY_LIFE_MS, state.KEY_YOUTH_MS) == (200_000, 86_400_000, 120_000)


def test_how_much_a_request_takes() -> None:
    """32 MiB of jobs, 1 MiB a job; and a chunk, which one entry holds, at most 1,000 jobs and 1 MiB."""
    assert bodies.BULK_BYTES_MAX == 32 << 20
    assert bodies.JOB_BYTES_MAX == 1 << 20
    assert bulk.CHUNK_JOBS <= jobs.WRITES_MAX <= 1_000
    assert bulk.CHUNK_BYTES <= 1 << 20

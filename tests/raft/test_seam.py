"""The seam: it works with exactly the engine that it mends, and what is shut off cannot be reached."""

from __future__ import annotations

import pysyncobj.syncobj as engine
import pysyncobj.version
import pytest

from raftcron.errors import ConfigurationError, FatalError
from raftcron.raft import seam


def test_the_installed_engine_is_the_one_that_is_mended() -> None:
    """Version and pinned sources agree; each pinned name exists."""
    seam.check_engine(pysyncobj.version.VERSION, seam.source_of)


def test_another_version_of_the_engine_is_refused() -> None:
    """The message names both versions and what to install."""
    with pytest.raises(ConfigurationError, match=r"version 0\.3\.18.*install exactly pysyncobj==0\.3\.17"):
        seam.check_engine("0.3.18", seam.source_of)


@pytest.mark.parametrize("name", ["syncobj.SyncObj._onTick", "syncobj.SyncObj.__onMessageReceived", "node.Node"])
def test_a_changed_method_is_refused_by_name(name: str) -> None:
    """One changed line in what is relied upon, and the node does not start."""
    with pytest.raises(ConfigurationError, match=name):
        seam.check_engine(
            seam.ENGINE_VERSION, lambda asked: seam.source_of(asked) + ("    pass\n" if asked == name else "")
        )


def test_a_method_that_is_gone_has_no_source() -> None:
    """So that it is refused by name, like a changed one."""
    assert seam.source_of("syncobj.SyncObj.__noSuchMethod") == ""


def test_every_overridden_method_exists_in_the_engine() -> None:
    """An override of a name that the engine does not call would mend nothing."""
    for name in seam.OVERRIDDEN:
        assert callable(getattr(engine.SyncObj, name))
        assert getattr(seam.Core, name) is seam.OVERRIDDEN[name]


def test_pickle_cannot_be_reached() -> None:
    """The engine's module has no pickle any more: not to load and not to dump."""
    for name in ("loads", "dumps", "dump", "load"):
        with pytest.raises(FatalError, match="shut off"):
            getattr(engine.pickle, name)


def test_the_stock_serializer_cannot_be_reached() -> None:
    """The engine's own snapshots have no way in or out."""
    with pytest.raises(FatalError, match="shut off"):
        engine.Serializer("dump", 1, False, None, None, None).deserialize()


def test_nodes_have_one_order_in_every_process() -> None:
    """Their hash is of the name's bytes, not Python's own, which is drawn anew for each process."""
    assert [hash(seam.Peer(name)) for name in ("n1", "n2")] == [0xEB7954EC, 0x72700556]

"""What a node can be told at its start.

`table.py` holds the settings; flags, variables, TOML keys, checks, `raftcron server --help` and docs/settings.md all
come from it.  `sources.py` reads them in the order flag, environment, file, default.
"""

from raftcron.config.kinds import Address
from raftcron.config.sources import load
from raftcron.config.table import SETTINGS, Setting, Settings

__all__ = ["SETTINGS", "Address", "Setting", "Settings", "load"]

"""PySyncObj's module `syncobj` once more, for raftcron alone: names in it are replaced, and an application that embeds
a node may use its own.

It is the installed file, run under another name; what it imports of its package is shared, and stays as it is.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pysyncobj.syncobj

NAME = "pysyncobj.syncobj_of_raftcron"  # inside the package, for its relative imports


def _load() -> Any:
    spec = importlib.util.spec_from_file_location(NAME, pysyncobj.syncobj.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


engine: Any = _load()

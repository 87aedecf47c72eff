"""A small request body, `{note, until}` and the like: its fields, and all of its faults at once.

Whoever reads one asks `fields_of` first, adds what else is wrong to the faults, and ends with `refuse_any`; so that one
answer names every fault.  Bodies of jobs are definition.py's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from raftcron.core.fields import escape, kind_of, near
from raftcron.core.instant import shown
from raftcron.errors import Fault, InvalidError
from raftcron.runtime.origin import unfit

Fields = Mapping[str, Any]


def fields_of(body: Any, known: Collection[str]) -> tuple[Fields, list[Fault]]:
    """The fields of a body, and what is wrong with their names; None (no body at all) has none.

    Raises InvalidError for what is no object.
    """
    if body is None:
        return {}, []
    if not isinstance(body, dict):
        raise invalid(Fault("", f"must be an object, not {kind_of(body)}"))
    return body, [
        Fault(f"/{escape(key)}", "is not a field here" + near(key, known)) for key in body if key not in known
    ]


def overlap_of(fields: Fields, faults: list[Fault]) -> bool:
    """Whether the request overrides the job's overlap policy for its run."""
    overlap = fields.get("overlap")
    if overlap not in (None, "allow"):
        faults.append(Fault("/overlap", f"is {shown(overlap)}: `allow`, or leave it out for the job's policy"))
    return overlap is not None


def flag_of(fields: Fields, name: str, faults: list[Fault]) -> bool:
    """A boolean; absent and null are no."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        faults.append(Fault(f"/{name}", f"must be a boolean, not {kind_of(value)}"))
    return bool(value)


def refuse_any(faults: list[Fault]) -> None:
    """Raises InvalidError if there are faults, of the body or of the request beside it."""
    if faults:
        raise invalid(*faults)
    if unfit.get():
        raise InvalidError("the request is not valid; nothing was done", tuple(unfit.get()))


def invalid(*faults: Fault) -> InvalidError:
    return InvalidError(f"the body has {counted(len(faults))}; nothing was done", faults)


def counted(count: int, noun: str = "fault") -> str:
    """`1 fault`, `2 faults`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")

"""docs/errors.md, printed from the tree of errors: `python -m raftcron.cli.errors_page > docs/errors.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from raftcron.cli.remote import AWAITED_RUN_FAILED
from raftcron.cli.root import INTERRUPTED
from raftcron.errors import FatalError, RaftcronError

EXIT_CODES: Final = {
    0: "done",
    1: "something else went wrong",
    2: "the command line, a file or a setting is not valid",
    3: "there is no such thing, or it is no longer held",
    4: "it conflicts with what is there",
    5: "no leader, no quorum, or no node can be reached: the same command may succeed later",
    6: "not allowed",
    AWAITED_RUN_FAILED: "the awaited run did not succeed (`job run --wait`, `run retry --wait`)",
    INTERRUPTED: "ended by Ctrl-C",
}

# code -> when it comes, and what to do.
MEANINGS: Final = {
    "invalid": (
        "The body, a parameter or a file makes no sense; `errors` names every fault, each with a JSON pointer.",
        "Mend what is named. `raftcron job apply` tells file and line; `--dry-run` looks before it writes.",
    ),
    "malformed": (
        "The request cannot be read at all: no JSON, no UTF-8, a header that is none, a body that is late.",
        "Mend the client that sent it.",
    ),
    "unauthorized": (
        "The node asks for a token, and there was none, or one that it does not know.",
        "Set `RAFTCRON_TOKEN` or `--token-file`. A lost admin token is replaced on a node's machine: "
        "`raftcron token create --bootstrap --data-dir DIR`.",
    ),
    "forbidden": (
        "The token's role or prefix does not cover this, or the request came with a Host or Origin that is refused.",
        "Use a token with a higher role; on loopback, ask under `127.0.0.1` or `localhost`.",
    ),
    "not_found": (
        "There is no job, run, member or route of this name.",
        "Look at what there is: `raftcron job list`, `raftcron run list`. Old runs leave history by its bounds.",
    ),
    "method_not_allowed": (
        "The path exists, but not with this method.",
        "`Allow` and `/openapi.json` say which there are.",
    ),
    "conflict": (
        "It exists already; or the idempotency key was used for another body, or its first request is still under way.",
        "PUT replaces, PATCH changes. With `Retry-After`, repeat after that time; else use another key.",
    ),
    "unsafe_change": (
        "The change of the members would leave fewer voters up than a majority.",
        "First bring back, or remove, the member that the message names.",
    ),
    "gone": (
        "Events or output that were asked for are no longer held.",
        "Of events: list again, and follow without `Last-Event-ID`. Of output: its last bytes are in the "
        "run's `output_tail`.",
    ),
    "revision": (
        "Somebody else has changed it since it was read (`If-Match`, `If-None-Match`).",
        "Read it again, make the change there, and write that.",
    ),
    "too_large": ("The body is over its limit.", "[limits.md](limits.md) has each; many jobs go as lines (NDJSON)."),
    "media_type": (
        "The `Content-Type` is none that this route takes, or there is a `Content-Encoding`.",
        "Send `application/json`, or what the message names.",
    ),
    "too_many": (
        "A bound on how many there may be is reached, or too much is asked at once.",
        "Wait for `Retry-After` and repeat; delete what is not needed.",
    ),
    "unavailable": (
        "No leader, no quorum, or the node is shutting down. **Certainly not written.**",
        "Repeat it, here or on another node. `raftcron doctor` says what is missing; reads work with `--stale` "
        "(`?consistency=stale`).",
    ),
    "unknown_outcome": (
        "It was proposed, and whether it was written could not be learnt in time.",
        "Repeat it with the same `Idempotency-Key`, which is harmless; or look.",
    ),
    "fatal": ("The node cannot go on without guessing, so it ends.", "Its log says why, and the next command."),
    "damaged": (
        "Bytes on disk that were synced are not what was written.",
        "`raftcron cluster replace NAME --data-dir DIR` ([members.md](members.md)).",
    ),
    "newer_version": (
        "A file or an entry is of a version that this release does not know.",
        "Install the newer release.",
    ),
    "configuration": (
        "The settings cannot be used; all that is wrong is named.",
        "Mend them ([settings.md](settings.md)).",
    ),
    "error": ("A fault of raftcron itself.", "The node's log has the rest: please report it."),
}


def kinds(root: type[RaftcronError] = RaftcronError) -> Iterator[type[RaftcronError]]:
    """The classes of the tree that have a code of their own, each before its children, the root last."""
    for child in root.__subclasses__():
        if child.__module__ == RaftcronError.__module__:
            yield child
            yield from kinds(child)
    if root is RaftcronError:
        yield root


def page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Every error has one class (`raftcron.errors`), one code, one HTTP status and one exit code. Over HTTP it is a",
        "problem document (RFC 9457) whose `type` is `urn:raftcron:problem:<code>`; the Python client raises the",
        "class; the command line prints what it says and ends with the exit code. This page is made from the code",
        "(`raftcron/cli/errors_page.py`).",
        "",
        "## Exit codes of the command line",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
        "## Codes",
    ]
    for kind in kinds():
        when, what = MEANINGS[kind.code]
        status = "ends the process" if issubclass(kind, FatalError) else f"HTTP {kind.http_status}"
        again = "; the same may succeed later" if kind.retryable else ""
        lines += ["", f"### {kind.code}", "", f"`{kind.__name__}`, {status}, exit code {kind.exit_code}{again}.", ""]
        lines += [when, what]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())

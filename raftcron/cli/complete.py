"""What the shell offers while a command is typed: names that the cluster knows, asked for in a moment or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

ANSWER_SECONDS: Final = 1.0  # of a node; whoever typed waits for it
OFFERED_MAX: Final = 200

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def job_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Jobs whose name begins so."""
    found = _asked(context, "/v1/jobs", {"q": incomplete or None, "limit": OFFERED_MAX})
    return _offered(incomplete, ((one["name"], str(one.get("description") or "")) for one in found))


def run_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs, with what they are of."""
    found = _asked(context, "/v1/runs", {"limit": OFFERED_MAX})
    return _offered(incomplete, ((one["id"], f"{one['job']}, {one['state']}") for one in found))


def node_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The members of the cluster."""
    found = _asked(context, "/v1/cluster", {}, "members")
    return _offered(incomplete, ((one["name"], str(one.get("role") or "")) for one in found))


def thing_names(kind: str) -> Completer:
    """Names of `tokens` and the like."""

    def names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _offered(incomplete, ((one["name"], "") for one in _asked(context, f"/v1/{kind}", {})))

    return names


def _offered(incomplete: str, found: Any) -> list[CompletionItem]:
    return [CompletionItem(name, help=hint or None) for name, hint in found if name.startswith(incomplete)]


def _asked(
    context: click.Context, path: str, query: Mapping[str, Any], items: str = "items"
) -> Sequence[Mapping[str, Any]]:
    """What a node answers from its own state; nothing where that fails, since a shell shows no errors."""
    from raftcron.cli.remote import client

    try:
        with context:
            stale = {} if items == "members" else {"consistency": "stale"}
            nodes = client(context.params.get("addr") or (), ANSWER_SECONDS)
            found: Sequence[Mapping[str, Any]] = nodes.request("GET", path, query=stale | dict(query)).body[items]
    except Exception:
        return []
    return found

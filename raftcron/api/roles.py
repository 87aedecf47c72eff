"""The table of roles as docs/security.md shows it: `python -m raftcron.api.roles` prints it."""

from __future__ import annotations

import sys
from collections import defaultdict

from raftcron.api.auth import ALL, JOB, NAME, RULES, RUN, SEES, WHOLE

_MEANT = {
    JOB: "the job in the path has to be within it",
    RUN: "the run's job has to be within it; others are not found",
    NAME: "the name has to be within it",
    SEES: "shows, and takes, what is within it",
    ALL: "makes no difference",
    WHOLE: "not for a token that has one",
}


def roles_table() -> str:
    """Least role, what a prefix means, and the routes; each role may do what those above it may."""
    routes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (method, path), rule in RULES.items():
        routes[rule.role, rule.scope].append(f"`{method} {path}`")
    rows = [f"| `{role}` | {_MEANT[scope]} | {', '.join(found)} |" for (role, scope), found in routes.items()]
    return "\n".join(["| least role | a prefix | routes |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(roles_table())

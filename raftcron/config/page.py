"""The table of settings as a page of the documentation: `python -m raftcron.config.page > docs/settings.md`."""

from __future__ import annotations

import sys

from raftcron.config.table import SETTINGS


def page() -> str:
    """docs/settings.md, written by `python -m raftcron.config.page > docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Flag, environment variable and TOML key (`--config FILE`, `RAFTCRON_CONFIG`) are one name. The order is flag,",
        "environment, file, default. Every fault is reported at once, before anything is opened. Repeatable settings",
        "are comma separated in the environment, and a list or a table in TOML. Durations are `500ms`, `10s`, `1h30m`",
        "or seconds as a number.",
        "",
        "This page is made from the table in `raftcron/config/table.py`.",
    ]
    for section in dict.fromkeys(row.section for row in SETTINGS):
        lines += [
            "",
            f"## {section}",
            "",
            "| flag | environment | default | range | meaning |",
            "|---|---|---|---|---|",
        ]
        for row in SETTINGS:
            if row.section == section:
                flag = "" if row.is_secret else f"`{row.flag}{' ' if row.kind.metavar else ''}{row.kind.metavar}`"
                cells = (flag, f"`{row.variable}`", row.shown_default, row.shown_range, row.help)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())

"""A crontab (crontab(5) of Debian's cron, with what cronie and systemd's readers add)."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import Any, Final

from raftcron.cli.importers import Imported, name_of, schedule_fault

_SETTING: Final = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z_][A-Za-z0-9_]*))\s*=\s*(.*?)\s*$""")
_WORD: Final = re.compile(r"\s*(\S+)")
ALIASES: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
ZONES: Final = ("CRON_TZ", "TZ")


def read(text: str, timezone: str, *, has_user: bool, seconds_first: bool = False) -> Imported:
    """The jobs of a crontab.

    `has_user`: a system crontab, whose sixth field is a user; `seconds_first`: schedules have six fields, the first of
    them seconds, as some libraries' tables do.  `timezone` is that of the machine, unless the table names one.
    """
    jobs: list[dict[str, Any]] = []
    warnings: list[str] = []
    taken: set[str] = set()
    settings: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        where = f"line {number}"
        if not line or line.startswith("#"):
            continue
        setting = _SETTING.fullmatch(line)
        if setting is not None and not line.startswith("@"):
            name = next(part for part in setting.groups()[:3] if part is not None)
            _set(settings, name, _unquoted(setting[4]), where, warnings)
            continue
        job = _job(line, where, settings, timezone, taken, warnings, has_user=has_user, seconds_first=seconds_first)
        if job is not None:
            jobs.append(job)
    if jobs:
        warnings.append(
            "cron starts a command though the one before still runs: these too (overlap.policy allow); skip is safer"
        )
        warnings.append(
            "a command runs on whichever node leads: it, its files and its users have to be on all of them, and the "
            "nodes need --allow-shell"
        )
    return Imported(jobs, warnings)


def _set(settings: dict[str, str], name: str, value: str, where: str, warnings: list[str]) -> None:
    if name == "MAILTO":
        warnings.append(
            f"{where}: MAILTO={value}: output is not mailed; it is kept with each run (`raftcron run logs`), and "
            "`alerts` of a job tell of failures"
        )
    elif name in ("MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"):
        warnings.append(f"{where}: {name} concerns mail, which is not sent: left out")
    elif name == "RANDOM_DELAY":
        warnings.append(f"{where}: RANDOM_DELAY={value}: left out; `jitter` of a job does the same")
    else:
        settings[name] = value


def _job(
    line: str,
    where: str,
    settings: dict[str, str],
    timezone: str,
    taken: set[str],
    warnings: list[str],
    *,
    has_user: bool,
    seconds_first: bool,
) -> dict[str, Any] | None:
    if line.startswith("-"):
        line = line[1:]  # cronie: no syslog line
        warnings.append(f"{where}: the leading - (no line in syslog) has no meaning here: left out")
    count = 1 if line.startswith("@") else 6 if seconds_first else 5
    words, at = [], 0
    for _ in range(count + has_user):
        found = _WORD.match(line, at)
        if found is None:
            warnings.append(f"{where}: has too few fields, left out: {line[:80]!r}")
            return None
        words.append(found[1])
        at = found.end()
    command = line[at:].strip()
    user = words.pop() if has_user else None
    schedule = " ".join(words)
    if not command:
        warnings.append(f"{where}: has no command, left out: {line[:80]!r}")
        return None
    if schedule.startswith("@") and schedule.lower() not in ALIASES:
        what = (
            "runs when a machine boots; a cluster does not boot: use a unit of the init system"
            if schedule.lower() == "@reboot"
            else "is not known here"
        )
        warnings.append(f"{where}: {schedule} {what}: left out: {command[:80]!r}")
        return None
    zone = next((settings[name] for name in ZONES if name in settings), timezone)
    fault = schedule_fault(schedule, zone)
    if fault is not None:
        warnings.append(f"{where}: left out: {fault}")
        return None
    if count == 5 and re.fullmatch(r"[0-9*,/-]+|[A-Za-z]{3}", command.split()[0]):
        warnings.append(
            f"{where}: the command begins with {command.split()[0]!r}: if the schedule has six fields, seconds first, "
            "import it with --seconds-first; with --system the sixth is a user"
        )
    executor: dict[str, Any] = {"type": "shell", "command": command}
    _percent(executor, command, where, warnings)
    shell = settings.get("SHELL", "/bin/sh")
    if shell != "/bin/sh":
        executor["command"] = [shell, "-c", executor["command"]]
    environment = {name: value for name, value in settings.items() if name not in (*ZONES, "SHELL")}
    if environment:
        executor["env"] = environment
    if user is not None:
        executor["user"] = user.split(":")[0]
    job: dict[str, Any] = {"name": name_of(_title(command), taken), "schedule": schedule}
    if zone != "UTC":
        job["timezone"] = zone
    return job | {"executor": executor, "overlap": {"policy": "allow"}, "description": f"crontab, {where}"}


def _percent(executor: dict[str, Any], command: str, where: str, warnings: list[str]) -> None:
    r"""An unescaped % ends the command; what follows is its input, with % as newlines; \% is a %."""
    parts = re.split(r"(?<!\\)%", command)
    executor["command"] = parts[0].replace("\\%", "%").strip()
    if len(parts) > 1:
        executor["stdin"] = "\n".join(part.replace("\\%", "%") for part in parts[1:]) + "\n"
        warnings.append(f"{where}: an unescaped % ends the command, as cron has it: what follows is in `stdin`")


def _title(command: str) -> str:
    """What a command is called: its program, or the script that an interpreter runs."""
    try:
        words = shlex.split(command.split("%", maxsplit=1)[0])
    except ValueError:
        words = command.split()
    for word in words:
        stem = PurePosixPath(word).name
        if "=" in word or word.startswith("-") or stem in (
            "sh", "bash", "env", "python", "python3", "perl", "nice", "ionice", "flock", "cd", "test", "[", "exec",
        ):  # fmt: skip
            continue
        if re.search(r"[A-Za-z]", stem):
            return PurePosixPath(stem).stem
    return PurePosixPath(words[0]).name if words else "job"


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value

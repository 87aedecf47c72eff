"""A crontab (crontab(5) of Debian's cron, with what cronie and systemd's readers add)."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import Any, Final

from raftcron.cli.importers import NO_LIMIT, Imported, meets_dst, name_of, schedule_fault

_SETTING: Final = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z_][A-Za-z0-9_]*))\s*=\s*(.*?)\s*""")
_WORD: Final = re.compile(r"\s*(\S+)")
_DRAWN: Final = re.compile(r"(\d*)~(\d*)")  # of cronie and OpenBSD: a number that is drawn from a range
_NAMED: Final = "SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_FIELD: Final = re.compile(rf"[0-9*,/?-]+|(?:{_NAMED})(?:[,-](?:{_NAMED}|\d))*", re.IGNORECASE)
_ANACRON: Final = re.compile(r"(?:\d+|@\w+)\s+\d+\s+[A-Za-z][\w.-]*\s+\S.*")
_OFF: Final = re.compile(r"#+\s*(?:[\d*@-].*|m\s+h\s+.*)")  # a comment that is a job, or the table's heading
ALIASES: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
ZONES: Final = ("CRON_TZ", "TZ")
FIELDS: Final = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))  # from where `~` alone draws
MAIL: Final = ("MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING")
USERS: Final = frozenset({"root", "www-data", "nobody", "daemon", "backup", "postgres", "mysql", "nginx", "apache"})
WRAPPERS: Final = frozenset(
    {"sh", "bash", "env", "python", "python3", "perl", "php", "ruby", "node", "nice", "ionice", "chronic", "flock",
     "timeout", "cd", "test", "[", "exec", "sudo", "run-parts", "true", "false"}
)  # fmt: skip


def read(text: str, timezone: str, *, has_user: bool, seconds_first: bool = False, now_ms: int = 0) -> Imported:
    """The jobs of a crontab.

    `has_user`: a system crontab, whose sixth field is a user; `seconds_first`: schedules have six fields, the first of
    them seconds, as some libraries' tables do.  `timezone` is that of the machine, unless the table names one.
    """
    table = _Table(timezone, now_ms, has_user=has_user, seconds_first=seconds_first)
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        table.line(f"line {number}", raw.strip())
    table.end()
    return Imported(table.jobs, table.warnings)


class _Table:
    """A crontab line by line: settings count for what stands below them."""

    def __init__(self, timezone: str, now_ms: int, *, has_user: bool, seconds_first: bool) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self._timezone = timezone
        self._now_ms = now_ms
        self._has_user = has_user
        self._seconds_first = seconds_first
        self._settings: dict[str, str] = {}
        self._jitter: str | None = None
        self._taken: set[str] = set()
        self._comment = ""  # right above
        self._at_night: list[str] = []  # lines that a change of the clocks touches

    def line(self, where: str, line: str) -> None:
        comment, self._comment = self._comment, ""
        if line.startswith("#"):
            self._comment = "" if _OFF.fullmatch(line) else line.strip("# \t")
        elif line:
            setting = None if line.startswith("@") else _SETTING.fullmatch(line)
            if setting is not None:
                name = next(part for part in setting.groups()[:3] if part is not None)
                self._set(name, _unquoted(setting[4]), where)
            elif (job := self._job(line, where)) is not None:
                job["description"] = f"{comment} (crontab, {where})".lstrip() if comment else f"crontab, {where}"
                self.jobs.append(job)

    def end(self) -> None:
        """What concerns all of it."""
        if not self.jobs:
            return
        if self._at_night:
            self.warnings.append(
                f"{', '.join(self._at_night[:20])}: meets a change of the clocks: a time that is jumped over runs "
                "right after it, one that comes twice runs the first time (`dst`), as in Debian's cron; others differ"
            )
        self.warnings += [
            "cron starts a command though the one before still runs: these too (overlap.policy allow); skip is safer",
            "cron forgets what fell due while the machine was down: here one late run makes up for it (misfire.policy "
            "once); `skip` forgets as well",
            f"cron sets a command no limit: these end after {NO_LIMIT} (timeout)",
            "a command runs on whichever node leads: it, its files and its users have to be on all of them, and the "
            "nodes need --allow-shell",
            "a command of cron begins in its user's home directory: these in that of the node, unless `cwd` says more",
        ]
        if not self._has_user:
            self.warnings.append("these run as the user of the node: `executor.user` names another one")

    # ---- details

    def _warn(self, where: str, text: str) -> None:
        self.warnings.append(f"{where}: {text}")

    def _set(self, name: str, value: str, where: str) -> None:
        if name == "MAILTO":
            told = f"MAILTO={value}: output is not mailed" if value else "MAILTO is empty, so nothing was mailed"
            self._warn(
                where, f"{told}; it is kept with each run (`raftcron run logs`), and `alerts` of a job tell of failures"
            )
        elif name in MAIL:
            self._warn(where, f"{name} concerns mail, which is not sent: left out")
        elif name == "RANDOM_DELAY":
            self._jitter = f"{int(value)}m" if value.isascii() and value.isdigit() and 0 < int(value) <= 1440 else None
            told = f"is `jitter` here, {self._jitter}, drawn for each time" if self._jitter else "left out"
            self._warn(where, f"RANDOM_DELAY={value}: {told}")
        elif name in ZONES and not value:
            self._settings.pop(name, None)
        elif name.startswith("RAFTCRON_") or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            self._warn(where, f"{name[:80]!r} cannot be a variable here: left out")
        else:
            self._settings[name] = value
            if "$" in value:
                self._warn(where, f"{name}: cron does not put anything in the place of $, nor is it done here")

    def _job(self, line: str, where: str) -> dict[str, Any] | None:
        if line.startswith("-"):
            line = line[1:]  # cronie: no syslog line
            self._warn(where, "the leading - (no line in syslog) has no meaning here: left out")
        found = self._split(line, where)
        if found is None:
            return None
        schedule, user, command = found
        zone = next((self._settings[name] for name in ZONES if name in self._settings), self._timezone)
        schedule = self._translated(schedule, where)
        fault = schedule_fault(schedule, zone)
        if fault is not None:
            self._warn(where, f"left out: {fault}")
            return None
        self._judge(where, schedule, zone, command, user)
        executor: dict[str, Any] = {"type": "shell", "command": command}
        self._percent(executor, command, where)
        shell = self._settings.get("SHELL", "/bin/sh")
        if shell != "/bin/sh":
            executor["command"] = [shell, "-c", executor["command"]]
        environment = {name: value for name, value in self._settings.items() if name not in (*ZONES, "SHELL")}
        if environment:
            executor["env"] = environment
        if environment.get("HOME", "").startswith("/"):
            executor["cwd"] = environment["HOME"]
        if user is not None:
            executor["user"] = user.split(":")[0]
            if ":" in user:
                executor["group"] = user.split(":")[1]
        job: dict[str, Any] = {"name": name_of(_title(command), self._taken), "schedule": schedule}
        if zone != "UTC":
            job["timezone"] = zone
        job |= {"executor": executor, "overlap": {"policy": "allow"}, "timeout": NO_LIMIT}
        return job if self._jitter is None else job | {"jitter": self._jitter}

    def _split(self, line: str, where: str) -> tuple[str, str | None, str] | None:
        """Schedule, user and command."""
        count = 1 if line.startswith("@") else 6 if self._seconds_first else 5
        words, at = [], 0
        for _ in range(count + self._has_user):
            found = _WORD.match(line, at)
            if found is None:
                self._warn(where, f"has too few fields, left out: {line[:80]!r}")
                return None
            words.append(found[1])
            at = found.end()
        command = line[at:].strip()
        if not command:
            self._warn(where, f"has no command, left out: {line[:80]!r}")
            return None
        user = words.pop() if self._has_user else None
        schedule = " ".join(words)
        if _ANACRON.fullmatch(line) and schedule_fault(schedule, "UTC") is not None and "~" not in schedule:
            self._warn(where, f"reads like a line of anacrontab(5), which this is not: left out: {line[:80]!r}")
            return None
        if schedule.startswith("@") and schedule.lower() not in (*ALIASES, "@every_minute"):
            what = (
                "runs when a machine boots; a cluster does not boot: use a unit of the init system"
                if schedule.lower() == "@reboot"
                else "is not known here"
            )
            self._warn(where, f"{schedule} {what}: left out: {command[:80]!r}")
            return None
        return schedule, user, command

    def _translated(self, schedule: str, where: str) -> str:
        """What only some crons write, in this one's words."""
        if schedule.lower() == "@every_minute":
            self._warn(where, "@every_minute is `* * * * *` here")
            return "* * * * *"
        if "~" not in schedule:
            return schedule
        self._warn(where, "`~` draws a number each time the table is read, `H` once, from the job's name: written so")
        fields = schedule.split()
        ranges = ((0, 59), *FIELDS) if len(fields) == 6 else FIELDS
        for place, (low, high) in enumerate(ranges[: len(fields)]):
            if (drawn := _DRAWN.fullmatch(fields[place])) is not None:
                fields[place] = f"H({drawn[1] or low}-{drawn[2] or high})" if drawn[1] or drawn[2] else "H"
        return " ".join(fields)

    def _judge(self, where: str, schedule: str, zone: str, command: str, user: str | None) -> None:
        """What is read in a way that may surprise."""
        first = command.split(maxsplit=1)[0]
        if not self._seconds_first and not schedule.startswith("@") and _FIELD.fullmatch(first):
            self._warn(
                where,
                f"the command begins with {first!r}: if the schedule has six fields, seconds first, import it with "
                "--seconds-first; with --system the sixth is a user",
            )
        if not self._has_user and first in USERS:
            self._warn(where, f"the command begins with {first!r}: if that is a user, import the table with --system")
        if user is not None and not re.fullmatch(r"[A-Za-z_][\w.-]*\$?(?::[\w.-]+)?", user):
            self._warn(where, f"{user[:80]!r} is read as the user: is this a system crontab (--system)?")
        if (odd := re.search(r"(?:^|[\s,])(\d+/\d+)", schedule)) is not None:
            self._warn(
                where, f"`{odd[1]}` goes on to the end of the field here; other crons take the first number alone"
            )
        if command.endswith("\\"):
            self._warn(where, "ends with a backslash: cron does not join lines, so the next one is a line of its own")
        if re.search(r"\brun-parts\b", command):
            self._warn(
                where,
                "run-parts runs all of a directory as one run: the directory has to be alike on all nodes; a job for "
                "each script would show how each of them ended",
            )
        if "anacron" in command:
            self._warn(where, "leaves its work to anacron where that is installed: this job does nothing there")
        if meets_dst(schedule, zone, self._now_ms):
            self._at_night.append(where)

    def _percent(self, executor: dict[str, Any], command: str, where: str) -> None:
        r"""An unescaped % ends the command; what follows is its input, with % as newlines; \% is a %."""
        parts = re.split(r"(?<!\\)%", command)
        executor["command"] = parts[0].replace("\\%", "%").strip()
        if len(parts) > 1:
            executor["stdin"] = "\n".join(part.replace("\\%", "%") for part in parts[1:]) + "\n"
            self._warn(where, "an unescaped % ends the command, as cron has it: what follows is in `stdin`")


def _title(command: str) -> str:
    """What a command is called: its program, the script that an interpreter runs, or the directory of run-parts."""
    try:
        words = shlex.split(command.split("%", maxsplit=1)[0])
    except ValueError:
        words = command.split()
    if "run-parts" in words:
        parts = [word.rstrip(");") for word in words[words.index("run-parts") + 1 :] if not word.startswith("-")]
        if parts:
            return PurePosixPath(parts[0]).name
    changed = {words[at + 1] for at, word in enumerate(words[:-1]) if word == "cd"}
    for word in words:
        stem = PurePosixPath(word).name
        if "=" in word or word.startswith("-") or word in changed or stem in WRAPPERS:
            continue
        if re.search(r"[A-Za-z]", stem):
            return PurePosixPath(stem).stem
    return PurePosixPath(words[0]).name if words else "job"


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value

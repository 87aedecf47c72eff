"""The sorts of values that settings have: how each is written, read and shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftcron.core.instant import format_duration, parse_duration

MIB: Final = 1 << 20
GIB: Final = 1 << 30

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Address(NamedTuple):
    """Where something listens or is reached; `host` is a name or an IP address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Every interface: a place to listen, not one to be reached at."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def is_loopback(self) -> bool:
        """Reached by processes of this machine only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class Kind:
    """How one sort of value is written, read (ValueError: why it cannot be) and shown."""

    metavar: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    unit: str = ""  # stands at the end of the field's name, and not in the setting's
    is_flag: bool = False
    is_repeatable: bool = False  # NAME=VALUE, many times; comma separated in the environment


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a text")
    return value.strip()


def _read_name(value: Any) -> str:
    name = _read_text(value)
    if not NAME.fullmatch(name):
        raise ValueError("is not a name: 1 to 64 of A-Z a-z 0-9 . _ - and a letter or digit first")
    return name


def _read_path(value: Any) -> Path:
    return Path(_read_text(value)).expanduser()


def _read_address(value: Any) -> Address:
    text = _read_text(value)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("is not HOST:PORT; an IPv6 host stands in brackets, as in [::1]:7101")
    if not colon or not host or not port.isascii() or not port.isdigit() or any(c in "[]/@ " for c in host):
        raise ValueError("is not HOST:PORT, as in 127.0.0.1:7101")
    if not 1 <= int(port) <= 65535:
        raise ValueError("has a port outside 1-65535")
    return Address(host.lower(), int(port))


def _read_whole(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("is not a whole number")


def _read_duration(value: Any) -> int:
    if isinstance(value, str):
        value = value.strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            value = float(value)  # a number is seconds, in a variable too
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError("is not a duration, as in 500ms, 10s or 1h30m") from error


def _read_span(value: Any) -> tuple[int, int]:
    low, dash, high = _read_text(value).partition("-")
    if not dash:
        raise ValueError("is not LOW-HIGH, as in 600ms-1200ms")
    span = _read_duration(low), _read_duration(high)
    if span[0] >= span[1]:
        raise ValueError("has a lower bound that is not below the upper one: nodes would stand for election together")
    return span


def _show_span(span: tuple[int, int]) -> str:
    return f"{span[0]}ms-{span[1]}ms"


_SIZES: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": MIB, "gib": GIB, "tib": 1 << 40}


def _read_size(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]{1,15})\s*([A-Za-z]*)", value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _SIZES:
        raise ValueError("is not a size, as in 200MiB or 1GiB (units B KiB MiB GiB TiB)")
    return int(match[1]) * _SIZES[match[2].lower()]


def _show_size(size: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _SIZES[unit.lower()] and size % _SIZES[unit.lower()] == 0:
            return f"{size // _SIZES[unit.lower()]}{unit}"
    return f"{size}B"


def _read_switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("is neither on (1, true, yes, on) nor off (0, false, no, off)")


def _pairs(value: Any) -> Iterable[tuple[str, str]]:
    """NAME=VALUE many times: a list (flags, TOML), a TOML table, or comma separated text (a variable)."""
    if isinstance(value, Mapping):
        items: list[Any] = [f"{name}={entry}" for name, entry in value.items()]
    elif isinstance(value, str):
        items = [item for item in value.split(",") if item.strip()]
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        raise ValueError("is neither a list of NAME=VALUE nor a table")
    for item in items:
        name, equals, entry = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals or not name.strip() or not entry.strip():
            raise ValueError(f"holds {item!r}, which is not NAME=VALUE")
        yield name.strip(), entry.strip()


def _read_mapping(value: Any, read: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entry in _pairs(value):
        try:
            _read_name(name)
            parsed = read(entry)
        except ValueError as error:
            raise ValueError(f"holds {name}={entry}, which {error}") from None
        if name in found:
            raise ValueError(f"names {name!r} twice")
        found[name] = parsed
    return found


def _show_mapping(mapping: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={entry}" for name, entry in mapping.items()) or "none"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _read_networks(value: Any) -> tuple[Network, ...]:
    """Comma separated, or a list in TOML; `none`."""
    items = value.split(",") if isinstance(value, str) else value
    if items == ["none"]:
        return ()
    if not isinstance(items, list | tuple):
        raise ValueError("is not a list of networks")
    found = []
    for item in items:
        try:
            found.append(ipaddress.ip_network(_read_text(item)))
        except ValueError as error:
            raise ValueError(f"holds {item!r}, which is no network as in 10.0.0.0/8 or fd00::/8: {error}") from None
    return tuple(found)


def _choice(*words: str) -> Kind:
    def read(value: Any) -> str:
        word = _read_text(value).lower()
        if word not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return word

    return Kind("|".join(words), read)


TEXT: Final = Kind("TEXT", _read_text)
TEXT_NAME: Final = Kind("NAME", _read_name)
PATH: Final = Kind("PATH", _read_path)
ADDRESS: Final = Kind("HOST:PORT", _read_address)
WHOLE: Final = Kind("N", _read_whole, show=lambda number: f"{number:,}")
DURATION: Final = Kind("DURATION", _read_duration, format_duration, unit="_ms")
SPAN: Final = Kind("LOW-HIGH", _read_span, _show_span, unit="_ms")
SIZE: Final = Kind("SIZE", _read_size, _show_size, unit="_bytes")
SWITCH: Final = Kind("", _read_switch, lambda on: "on" if on else "off", is_flag=True)
PEERS: Final = Kind("NAME=HOST:PORT", lambda v: _read_mapping(v, _read_address), _show_mapping, is_repeatable=True)
TAGS: Final = Kind("KEY=VALUE", lambda v: _read_mapping(v, _read_text), _show_mapping, is_repeatable=True)
NETWORKS: Final = Kind("NETWORKS", _read_networks, lambda networks: ",".join(map(str, networks)) or "none")
SECRET: Final = Kind("SECRET", lambda value: _read_text(value).encode(), lambda _: "(hidden)")
LEVEL: Final = _choice("debug", "info", "warning", "error")
MAIL_TLS: Final = _choice("auto", "tls", "starttls", "off")

"""Placeholder until the scribe is written."""

from __future__ import annotations

from typing import Protocol


class Scribe(Protocol):
    def stop(self) -> None: ...


class ForkedScribe:
    def stop(self) -> None:
        pass


class SlicedScribe:
    def stop(self) -> None:
        pass

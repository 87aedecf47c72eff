"""Chance for tests: generators that a seed and a purpose name, the same in each process and on each machine."""

from __future__ import annotations

from random import Random  # noqa: TID251  (seeded below, and by nothing else: repeatable is the point)

Chance = Random


def chance(seed: int, purpose: str) -> Chance:
    """The generator of one purpose under one seed; generators of different purposes do not disturb each other."""
    return Random(f"{seed}/{purpose}")  # noqa: S311  (no secret comes of it)

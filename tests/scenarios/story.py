"""Stories of a cluster as plain text: what is done, `----`, what is seen; times are seconds since the story began.

    job a {"schedule": "@every 10s"}    create or replace it        a takes 5s [and fails] | fails | times out | breaks
    wait 12s                            let time pass               a hangs | lingers (25 s when it is stopped)
    run a [allow] | cancel a 10s
    pause a ["note" until 30s]          resume a [catch_up]         delete a [cancel_running]
    kill n1 | elect n2 | reborn n1      cut | heal                  edit a {"overlap": {"policy": "allow"}}
    cut n1 | heal n1                    it alone hears nothing  apply n1 2               cut off, it applies two entries
    freeze n1 | thaw n1                 SIGSTOP, SIGCONT        hold n1 | release n1     what it writes is on its way
    group g 2                           a cap of two runs at once   drain n2                 no new runs there
    backfill a -60s 0s [dry]            retry a 10s                 a is deaf                (a command: to SIGTERM)
    run a [allow] key k                 new or again?               stop n1 20s              SIGTERM, with that grace
    run a args {"day": 3}               args a                      what its attempts were given
    a is taken over                     its target says 202         finish a 10s failed [late] | hear a 10s
    clock n1 30s                        its clock is so wrong       accept-time
    runs a                              all rows, oldest first      job a                    counters
    starts a | stops a                  what executors were told    catch-up                 how much is owed
    signals a                           what commands were sent     why a 10s                the verdict on a time
    time                                who leads, what time it trusts, whether it decides
    receiver away | receiver back       alerts are not taken    alerts a                 what was told of it
    a answers 500 [text] | a is unreachable                     calls a                  what its target got
    errors a                            how runs failed         output a                 the last line of each run
    statistics a                        how long, how late      conservation             what followers recount
    forget 20s                          planners have a fault from now on: they neither fire nor skip that time

A story begins with comment lines, the first of which says what is true, and perhaps `stage {"slots": 2}`; with
`"commands": true` what runs is a command of the shipped spawner, with `"executors": true` jobs are run by the shipped
executors (the target of job `a` is the host `a`), with `"alerts": true` nodes tell what happens.  After each block the
times owed are counted anew from the calendar, and all nodes that live stand at one digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.scene import Scene, play
from tests.scenarios.teller import Teller
from tests.scenarios.words import StoryError, read
from tests.simulation.switch import Replacement, replaced

STORIES = Path(__file__).with_name("stories")


@dataclass
class Block:
    """Some commands, by the line where they stand, and what is seen after them."""

    commands: dict[int, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a story, which empty lines part."""
    block, is_seen = Block(), False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if not line.strip():
            if block.commands:
                yield block
            block, is_seen = Block(), False
        elif line.strip() == "----":
            is_seen = True
        elif is_seen:
            block.seen.append(line.rstrip())
        elif not line.startswith(("#", "stage ")):
            block.commands[number] = line.strip()


def tell(path: Path) -> str:
    """Play a story; its text with what was really seen, which equals the file if all is well.

    Raises StoryError where it says what nobody can do.
    """
    text = path.read_text()
    [*stages] = re.findall(r"^stage (.*)$", text, re.MULTILINE)
    told: list[str] = []

    async def act(scene: Scene) -> None:
        await scene.seconds(0.5)
        with Teller(scene) as teller:
            for block in blocks_of(text):
                seen: list[str] = []
                for line, command in block.commands.items():
                    try:
                        seen += await teller.do(command)
                    except StoryError as error:
                        raise StoryError(f"{path.name}, line {line}: {command}: {error}") from error
                teller.check()
                told.append("\n".join([*block.commands.values(), *(["----", *seen] if seen else [])]))

    play(act, **(read(stages[0]) if stages else {}))
    head = [line for line in text.splitlines() if line.startswith(("#", "stage "))]
    return "\n".join(head) + "\n\n" + "\n\n".join(told) + "\n"


def goes_otherwise(replacements: list[Replacement], story: str) -> bool:
    """Whether a story goes otherwise than it is told, or cannot be told, with something else in the place of names."""
    path = STORIES / f"{story}.txt"
    with replaced(replacements):
        try:
            told = tell(path)
        except AssertionError:  # of the teller: conservation, or nodes that differ
            return True
    return told != path.read_text()

"""Mends and guards of raftcron, each with a switch that turns it off, to see that the simulation's checkers can fail.

`MUTANTS` names, for each, the checker that must fire; recorded.json holds the seeds in which one does.  Where dice do
not find it there is a script (scripts.py).  When a change moves the traces, `scripts/simulate --mutants` looks for
new seeds and writes them down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from raftcron import node as shipped_node
from raftcron.core import apply as core_apply
from raftcron.core import definition, image, planner, timeline
from raftcron.core.apply import admission, chains, decisions, jobs, remote, runs
from raftcron.core.apply import leadership as leadership_entries
from raftcron.core.commands import Announce, Backfill, Conclude, Decide, Finish, Hear, ResumeJob, Trigger
from raftcron.core.instant import MAX_MS
from raftcron.core.state import State
from raftcron.core.timeline import Timeline
from raftcron.core.times import Times
from raftcron.raft import (
    engine,
    guard,
    leadership,
    membership,
    proposals,
    reads,
    replay,
    roster,
    seam,
    segment,
    snapshot,
)
from raftcron.raft.journal import Journal
from raftcron.raft.settings import RaftSettings
from raftcron.runtime import (
    assigner,
    clocks,
    conservation,
    leases,
    machine,
    members,
    presence,
    scheduler,
    worker,
    writes,
)
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks, sim_node, sim_story, sim_targets
from raftcron.testing.sim_checks import Violation
from raftcron.testing.sim_story import Story
from tests.simulation import (
    off_apply,
    off_log,
    off_protocol,
    off_rules,
    off_runs,
    off_time,
    scripts,
    scripts_disks,
    scripts_runs,
)
from tests.simulation.fails import is_said
from tests.simulation.switch import Replacement, handled, replaced

SHORT, LONG = LeaseTimes(3.0, 0.6), LeaseTimes(10.0, 2.0)


class Mutant(NamedTuple):
    """One mend, switched off by `replacements`; one of `checkers` must fire.

    With a `script`, in that course of events; `given` are replacements that hold then with and without the mend, where
    another mend would be in the way.  `says` is a part of the one line (fails.py) by which it must fire, with `{}` for
    what is filled in; empty: any line of the checker will do.
    """

    replacements: list[Replacement]
    checkers: set[str]
    script: Callable[[Story], None] | None = None
    size: int | None = None
    times: LeaseTimes | None = None
    given: list[Replacement] = []
    says: str = ""


# For a livelock that keeps the processor busy: with the mend all is well within much less than this.
SOON_QUIET: list[Replacement] = [(sim_story, "LEADER_SECONDS", 0.5), (sim_story, "QUIET_SECONDS", 2.0)]
NO_FALLBACK: Replacement = (sim_node, "RaftSettings", partial(RaftSettings, leader_fallback=60.0))

MUTANTS: dict[str, Mutant] = {
    # the log
    "acknowledged before it is synced": Mutant(
        [(seam.Core, "flush", off_log.flush_without_sync)],
        {sim_checks.COMMITTED},
        says="has applied {}, which is durable on",
    ),
    "a leader counts itself before it has synced": Mutant(
        [
            (seam.Core, "step", off_log.step_without_own_sync),
            (Journal, "setRaftCommitIndex", off_log.commit_index_without_sync),
        ],
        {sim_checks.COMMITTED},
    ),
    "a candidate asks before it has synced": Mutant(
        [
            (seam.Core, "_dispatch", off_log.asked_before_the_sync),
            (Journal, "setCurrentTerm", off_log.own_vote_without_sync),
        ],
        {sim_checks.ONE_LEADER},
        scripts.win_and_die,
        size=3,
        says="and {} lead term",
    ),
    "no fsync": Mutant([(Journal, "sync", off_log.sync_without_sync)], {sim_checks.COMMITTED}),
    "a failed fsync is tried again": Mutant([(Journal, "sync", off_log.sync_tried_again)], {sim_checks.COMMITTED}),
    "no checksum": Mutant(
        [(segment, "_end_of_record", off_log.end_of_any_record)], {sim_checks.ONE_HISTORY}, scripts.flip_bits, size=3
    ),
    "whatever cannot be read is a torn end": Mutant(
        [(replay, "proof_of_durability", lambda *_: None)],
        {sim_checks.FATAL},
        says="cut off what synced records follow",
    ),
    "a flipped bit of long ago is cut off": Mutant(
        [(replay, "proof_of_durability", lambda *_: None)],
        {sim_checks.FATAL},
        scripts_disks.flip_bits_alone,
        size=3,
        says="has rotted",
    ),
    "a flipped bit of what was synced last is read": Mutant(
        [(segment, "_end_of_record", off_log.end_of_any_record)],
        {sim_checks.FATAL},
        scripts_disks.flip_writes_of_one_segment,
        size=3,
        says="started with bit {} of byte {} flipped",
    ),
    "a start cuts off the last entry": Mutant(
        [(replay.Replay, "_take_open", off_log.opened_without_the_last)],
        {sim_checks.DURABLE},
        scripts_disks.end_together,
        size=3,
        says="acknowledged long ago",
    ),
    "whatever follows is cut": Mutant(
        [
            (guard, "judge_append", off_log.append_cuts_whatever_follows),
            (guard, "judge_answer", off_log.cut_and_rewind),
        ],
        {sim_checks.COMMITTED},
        scripts.resend_to_who_holds_it,
        size=3,
    ),
    "answers of earlier terms count": Mutant(
        [(seam.Core, "_take_answer", off_log.answers_of_any_term)],
        {sim_checks.MATCH},
        scripts.answer_of_an_earlier_term,
        size=5,
        says="counts on entry {} of",
    ),
    "all that is held is claimed": Mutant(
        [(guard, "judge_append", off_log.append_claims_all)],
        {sim_checks.ONE_HISTORY},
        scripts.restart_with_a_stale_tail,
        size=3,
        says="applied {} at {}, another node",
    ),
    "a commit index beyond what was checked counts": Mutant(
        [(seam.Core, "_take_append", off_log.commit_index_of_any_append)],
        {sim_checks.ONE_HISTORY},
        scripts.restart_with_a_stale_tail,
        size=3,
    ),
    "contradicting indexes, each refusal rewinds": Mutant(
        [
            (guard, "judge_append", off_log.append_refused_by_two_rules),
            (guard, "judge_answer", off_log.answer_always_rewinds),
        ],
        {sim_checks.LIVENESS},
        scripts.differ_by_several_batches,
        size=3,
        given=SOON_QUIET,
    ),
    "refusals are not heard": Mutant(
        [(guard, "judge_answer", off_log.answer_never_rewinds)], {sim_checks.LIVENESS}, says="the nodes stand thus"
    ),
    "an old leader hears nothing": Mutant(
        [
            (seam.Core, "_is_current", off_log.old_leaders_hear_nothing),
            (seam.Core, "observe_term", off_log.higher_terms_are_not_seen),
        ],
        {sim_checks.LIVENESS},
        scripts.stand_and_be_cut_off,
        size=3,
    ),
    "unknown is called not written": Mutant(
        [(proposals.Proposals, "expire", off_log.expire_says_not_written)],
        {sim_checks.NOT_WRITTEN},
        scripts.deaf_leaders,
        size=3,
        says="was refused, and stands at",
    ),
    '"not written" at a step-down, before a newer leadership entry has applied': Mutant(
        [(leadership.Leadership, "ended", off_log.ended_and_not_written)],
        {sim_checks.NOT_WRITTEN},
        scripts.deaf_leaders,
        size=3,
        says="was refused, and stands in the end at",
    ),
    "claimed before it is committed": Mutant(
        [(engine.Engine, "propose", off_log.answered_when_appended)],
        {sim_checks.DURABLE},
        says="was acknowledged at {} and stands at",
    ),
    "reads without a round": Mutant(
        [(reads.Reads, "_begin_round", off_log.round_without_a_quorum)],
        {sim_checks.LINEARIZABLE},
        scripts.read_at_a_leader_that_slept,
        size=3,
    ),
    "a shared read round for clients": Mutant(
        [(reads.SharedQuestion, "join", off_protocol.join_what_is_out)], {sim_checks.LINEARIZABLE}
    ),
    "stale reads are called linearizable": Mutant(
        [(engine.Engine, "read_index", off_log.read_what_is_here)],
        {sim_checks.LINEARIZABLE},
        says="a read is served at",
    ),
    "votes are forgotten": Mutant(
        [(Journal, "setCurrentTerm", off_log.vote_forgotten)], {sim_checks.ONE_LEADER}, scripts.vote_twice, size=3
    ),
    "nothing vouches for a vote": Mutant(
        [(Journal, "setCurrentTerm", off_log.vote_without_a_mark)],
        {sim_checks.ONE_LEADER},
        scripts.a_vote_rots,
        size=3,
    ),
    "an empty directory is admitted and votes": Mutant(
        [
            (membership.Membership, "admit", off_log.nothing_is_damaged),
            (membership.Membership, "counts", off_log.whoever_has_the_name_counts),
            (membership.Membership, "may_vote", off_log.anybody_votes),
        ],
        {sim_checks.ONE_HISTORY},
        scripts.a_wiped_voter,
        size=3,
    ),
    "a replaced directory counts for its successor": Mutant(
        [(membership.Membership, "counts", off_log.whoever_has_the_name_counts)],
        {sim_checks.ONE_HISTORY},
        scripts_disks.a_replaced_disk_comes_back,
        size=3,
    ),
    "an empty directory is admitted": Mutant(
        [
            (membership.Membership, "admit", off_log.nothing_is_damaged),
            (membership.Membership, "counts", off_log.whoever_has_the_name_counts),
        ],
        {sim_checks.ONE_HISTORY},
        scripts_disks.wipe_the_leaders_disk,
        size=3,
        says="was taken in with an empty directory",
    ),
    "an old copy of a disk goes on": Mutant(
        [handled(Announce, off_apply.announce_of_an_old_copy)],
        {sim_checks.FATAL},
        scripts_disks.set_a_disk_back,
        size=3,
        says="goes on with an old copy",
    ),
    "an old copy of a disk waits for ever": Mutant(
        [(presence.Presence, "state_changed", off_runs.seen_without_a_doubt)],
        {sim_checks.LIVENESS},
        scripts_disks.set_a_disk_back,
        size=3,
        says="does not find out that its disk is an old copy",
    ),
    "a replaced node believes its own count of lives": Mutant(
        [(shipped_node.Node, "start", off_runs.sure_of_its_life)],
        {sim_checks.I2},
        scripts_runs.replace_in_the_midst,
        size=3,
        times=LONG,
    ),
    "a majority forms a cluster": Mutant(
        [
            (membership.Membership, "missing", off_log.majority_is_enough),
            (membership.Membership, "_is_founder", off_log.anybody_stands),
            (membership.Membership, "form", off_log.form_of_those_known),
            (membership.Membership, "unknown", lambda _self: []),
            (membership.Membership, "admit", off_log.nothing_is_damaged),
        ],
        {sim_checks.ONE_HISTORY},
        scripts.form_twice,
        size=3,
    ),
    # snapshots and members
    "the watermark is lost in a snapshot": Mutant(
        [(machine.Restoring, "install", off_log.install_without_watermarks)],
        {sim_checks.DIGEST},
        says="its records give",
    ),
    "not written is said of what a snapshot holds": Mutant(
        [(leadership.Leadership, "installed", off_log.voided_by_a_snapshot)],
        {sim_checks.NOT_WRITTEN},
        scripts.snapshot_over_what_is_pending,
        size=3,
    ),
    "an offer moves the commit index": Mutant(
        [(seam.Core, "_take_offer", off_log.offer_moves_the_commit_index)],
        {sim_checks.ONE_HISTORY},
        scripts.offer_to_a_stale_tail,
        size=3,
    ),
    "a snapshot clears an acknowledged tail": Mutant(
        [(seam.Core, "holds", lambda *_: False), (Journal, "align", off_log.aligned_by_clearing)],
        {sim_checks.MATCH},
        scripts.offer_of_what_is_held,
        size=3,
    ),
    "the journal does not join its snapshot": Mutant(
        [(Journal, "align", off_log.aligned_with_blanks)],
        {sim_checks.ONE_HISTORY},
        scripts.death_before_an_install,
        size=3,
        says="{} has {} at {}, another node {}",
    ),
    "a rotten snapshot is believed": Mutant(
        [
            (snapshot, "Reading", off_log.Trusting),
            (snapshot.SnapshotStore, "_verified", off_log.verified_without_a_look),
            (snapshot.SnapshotStore, "blocks", off_log.blocks_without_a_look),
            (image.Reader, "finish", off_log.finished_without_a_look),
        ],
        {sim_checks.DIGEST},
        scripts.rot_snapshots,
        size=3,
    ),
    "a snapshot is not synced": Mutant(
        [(snapshot.SnapshotStore, "__init__", off_log.store_that_never_syncs)],
        {sim_checks.COVERED},
        says="its snapshots end at",
    ),
    "an offer is not answered": Mutant(
        [(seam.Core, "_take_offer", off_log.offer_without_an_answer)],
        {sim_checks.LIVENESS},
        scripts.offer_to_a_stale_tail,
        size=3,
    ),
    "an offer does not fit": Mutant(
        [(seam.Core, "_offer", off_log.offer_that_does_not_fit)], {sim_checks.NOISE}, says="was sent bad messages"
    ),
    "what a later release wrote is taken": Mutant(
        [(machine, "decode_entry", off_log.decoded_of_any_version)],
        {sim_checks.NEWER},
        scripts.upgrade_the_leader,
        size=3,
        says="which a later release has written",
    ),
    "learners count": Mutant(
        [(seam.Core, "set_members", off_log.learners_count)],
        {sim_checks.COMMITTED},
        scripts.commit_with_a_learner,
        size=3,
    ),
    "changes of the members overlap": Mutant(
        [
            (membership.Membership, "_may_change", off_log.change_at_any_time),
            (roster.Roster, "change", off_log.change_beside_another),
        ],
        {sim_checks.MEMBERS},
        scripts.change_twice_at_once,
        size=3,
        says="none of the configurations {} is committed",
    ),
    "no node stops by its digest": Mutant(
        [(presence.Presence, "_compare", lambda *_: None)],
        {sim_checks.I14},
        scripts.spoil_a_record,
        size=3,
        says="its log gives",
    ),
    "two learners vote from one entry on": Mutant(
        [(membership.Membership, "due", off_log.promoted_at_once)],
        {sim_checks.MEMBERS},
        scripts_disks.promote_two,
        size=3,
        says="entry {} of {} makes",
    ),
    "a snapshot leaves the keys out": Mutant(
        [(image, "_parts", off_apply.parts_without_keys), (image.Reader, "finish", off_apply.finished_as_it_came)],
        {sim_checks.DIGEST},
        says="from a snapshot",
    ),
    "a snapshot is not read back": Mutant(
        [(snapshot.Writing, "check", off_log.written_and_not_read)],
        {sim_checks.FATAL},
        scripts_disks.flip_writes,
        size=3,
        says="counts on a snapshot that is not what it wrote",
    ),
    # what apply keeps
    "what cannot be read counts as done": Mutant(
        [(machine, "Refused", off_apply.refused_and_done)], {sim_checks.I1}, says="cannot be read, and changed"
    ),
    "a change comes before its check": Mutant(
        [handled(Hear, off_apply.hear_before_the_check)], {sim_checks.I1}, says="was refused ({}) and changed"
    ),
    "a key is forgotten": Mutant(
        [(core_apply, "replay", off_apply.no_key_is_known)],
        {sim_checks.DURABLE},
        scripts_runs.nothing_happens,
        size=3,
        given=[(engine.Engine, "propose", off_apply.propose_again)],
        says=", acknowledged at {}, stands at",
    ),
    "an edit keeps the revision": Mutant(
        [(jobs, "replace", off_apply.replace_under_its_revision)],
        {sim_checks.LINEARIZABLE},
        says="a read of {} sees revision",
    ),
    "each leader counts tokens from 1": Mutant(
        [(leadership_entries, "lead", off_apply.lead_and_count_anew)], {sim_checks.I3}, says="gives tokens {} after"
    ),
    "an entry sets cluster time back": Mutant(
        [(machine, "apply", off_apply.apply_at_its_word)], {sim_checks.I5}, says="cluster time or epoch went back"
    ),
    "a decision goes beyond what has come": Mutant(
        [(planner, "decide", off_apply.decide_beyond_now)],
        {sim_checks.I5},
        says="the watermark of {} is {} ms beyond the bound",
    ),
    "a decision does not move the watermark": Mutant(
        [(decisions, "take", off_apply.take_and_stay)], {sim_checks.I5}, says="beyond the watermark"
    ),
    "a resume sets the watermark back": Mutant(
        [handled(ResumeJob, off_apply.resume_at_its_word)],
        {sim_checks.I5},
        scripts_runs.resume_under_an_earlier_time,
        size=3,
        says="the watermark of {} goes from",
    ),
    "what follows from an end follows from the beginning": Mutant(
        [(timeline, "times_of", off_apply.times_from_the_anchor)], {sim_checks.I4}, says="its last run ended at"
    ),
    "what overlaps is not counted": Mutant(
        [(decisions, "_fire", off_apply.fire_uncounted)], {sim_checks.I4}, says="job {} owed {}, fired {}"
    ),
    "a node counts what is owed too late": Mutant(
        [(conservation.Conservation, "check", off_apply.counted_later)], {sim_checks.NOISE}
    ),
    # decisions
    # decisions
    "apply raises": Mutant([handled(Trigger, off_rules.triggered_but_some)], {sim_checks.FATAL}, says="{} ends: {}"),
    "a plan fails": Mutant([(planner, "decide", off_rules.no_plan_for_some)], {sim_checks.NOISE}, says="{} logs {}"),
    "what a client may ask for is refused": Mutant(
        [(definition, "SCHEDULES_MAX", 0)], {sim_checks.NOISE}, says="what clients write is not valid"
    ),
    "what an operator may leave out is demanded": Mutant(
        [(members, "_addresses", off_rules.addresses_of_both)],
        {sim_checks.NOISE},
        says="what the operator asks for is not valid",
    ),
    "an entry of any epoch counts": Mutant(
        [(machine, "apply", off_runs.any_epoch)], {sim_checks.EPOCH}, says="and counts in epoch"
    ),
    "the watermark is not looked at": Mutant(
        [
            (decisions, "holds", off_runs.holds_below_the_watermark),
            (jobs, "holds", off_runs.holds_below_the_watermark),
            (jobs, "_settle", off_runs.settle_below_the_watermark),
        ],
        {sim_checks.I1},
        says="and again at",
    ),
    "an edit fires again": Mutant(
        [handled(Decide, off_runs.decide_of_a_former_revision), (jobs, "_settle", off_runs.settle_by_a_row)],
        {sim_checks.I11},
        says="decided through {} already",
    ),
    "an edit is half applied": Mutant(
        [(jobs, "_settle", off_runs.settle_nothing)], {sim_checks.I4}, says="edits a job that owes"
    ),
    "a time is dropped by the planner": Mutant(
        [(planner, "decide", off_runs.decide_but_one)], {sim_checks.I4}, says="moves {} past {} times"
    ),
    "missed times leave no row": Mutant([(decisions, "summarise", off_runs.summarise_without_a_row)], {sim_checks.I4}),
    "overlap is not looked at": Mutant(
        [(State, "has_room", off_runs.always_room)], {sim_checks.I9}, says="starts on {} beside"
    ),
    "what overlaps leaves no row": Mutant([(admission, "admit", off_runs.admit_without_a_row)], {sim_checks.I4}),
    "a pause is forgotten on restart": Mutant(
        [(machine.Machine, "apply", off_runs.pause_is_forgotten)],
        {sim_checks.DIGEST},
        says="has digest {} at {}, another node",
    ),
    "a pause does not hold": Mutant(
        [
            (decisions, "holds", off_runs.holds_while_paused),
            (Timeline, "update", off_runs.update_though_paused),
        ],
        {sim_checks.I10},
        says="is paused, and {} was decided",
    ),
    "a backfill decides": Mutant(
        [handled(Backfill, off_runs.backfill_and_decide)], {sim_checks.BACKFILL}, says="entry {} moves {} from"
    ),
    "a backfill leaves a time out": Mutant(
        [handled(Backfill, off_runs.backfill_but_one)], {sim_checks.BACKFILL}, says="makes runs for"
    ),
    # the rarer rules
    "max_runs is not looked at": Mutant([(decisions, "is_spent", lambda *_: False)], {sim_checks.I4}),
    "a job goes on after all its runs": Mutant(
        [(decisions, "is_spent", lambda *_: False), (Timeline, "update", off_rules.update_though_spent)],
        {sim_checks.I4},
        says="of all its runs",
    ),
    "what is to be skipped is not": Mutant(
        [(planner, "decide", off_rules.decide_what_is_to_be_skipped)], {sim_checks.REQUESTED}, says="to be skipped are"
    ),
    "a pause does not end by itself": Mutant(
        [(scheduler.Scheduler, "_end_pauses", off_rules.pauses_go_on)], {sim_checks.I8}, says="all is well, and"
    ),
    "a write passes by what is owed since a pause": Mutant(
        [
            (scheduler.Scheduler, "_end_pauses", off_rules.pauses_go_on),  # as if the leader were late
            (writes.pauses, "over_before", lambda *_: []),
        ],
        {sim_checks.I4},
        says="its job's pause is over since",
    ),
    "a drained node gets runs": Mutant(
        [
            (State, "has_slot", off_rules.slot_though_drained),
            (assigner._Room, "has_slot", off_rules.room_though_drained),
            (assigner.Assigner, "_takes_runs", off_rules.takes_runs_though_drained),
        ],
        {sim_checks.PLACED},
        says="which is drained",
    ),
    "tags are not looked at": Mutant(
        [(State, "carries", lambda *_: True)], {sim_checks.PLACED}, says="needs {}, and is given"
    ),
    "a part of a broadcast goes anywhere": Mutant(
        [
            (assigner, "choose", off_rules.choose_for_any_part),
            (runs, "may_be_at", off_rules.part_may_be_anywhere),
        ],
        {sim_checks.MOVED},
        says="a part of a broadcast to",
    ),
    "what comes back is given away at once": Mutant(
        [(assigner._Returns, "holds", lambda *_: False)], {sim_checks.PATIENT}, says="gets a node for the"
    ),
    "a jitter reaches its bound": Mutant(
        [(Times, "due_at", off_rules.due_after_the_whole_jitter)], {sim_checks.DUE}, says="its jitter is"
    ),
    "the start deadline is not looked at": Mutant(
        [
            (admission, "start_deadline", lambda *_: MAX_MS),
            (runs, "start_deadline", lambda *_: MAX_MS),
            (assigner, "start_deadline", lambda *_: MAX_MS),
        ],
        {sim_checks.IN_TIME},
        says="ms after {}, due at",
    ),
    "any end is tried again": Mutant(
        [(runs, "may_retry", off_rules.retry_any_end)], {sim_checks.I2}, says="is to be tried again"
    ),
    "what follows several follows one": Mutant(
        [(chains, "_notice", off_rules.follow_any)], {sim_checks.JOINED}, says="follows at {} on"
    ),
    # time
    "a leader trusts its wall clock": Mutant(
        [(clocks.TrustedTime, "now_ms", off_time.wall_time)],
        {sim_checks.I5},
        scripts_runs.leader_jumps_a_year,
        size=3,
        says="cluster time is",
    ),
    "where no majority agrees the own clock counts": Mutant(
        [(clocks, "agree", off_time.own_where_none_agrees)], {sim_checks.I5}, scripts_runs.two_voters_differ, size=3
    ),
    "old clocks count": Mutant(
        [(clocks, "FRESH_SECONDS", 1e9)], {sim_checks.I5}, scripts_runs.two_clocks_one_after_the_other, size=3
    ),
    "who trusts nothing stamps with its wall clock": Mutant(
        [(clocks.TrustedTime, "now_ms", off_time.wall_time_at_first)],
        {sim_checks.I5},
        scripts_runs.start_with_two_that_differ,
        size=3,
    ),
    "a lone node believes any clock": Mutant(
        [(clocks, "trust_alone", off_time.own_word)], {sim_checks.I5}, scripts_runs.lone_node_jumps_a_year, size=1
    ),
    "a leader looks rarely for what is due": Mutant(
        [
            (scheduler.Scheduler, "_seconds_to_wait", off_time.rarely),
            (scheduler.Scheduler, "state_changed", lambda *_: None),
        ],
        {sim_checks.I8},
        scripts_runs.nothing_happens,
        size=3,
    ),
    "a new leader waits before it looks": Mutant(
        [(scheduler.Scheduler, "run", off_time.lead_later)],
        {sim_checks.I8},
        says="after it was due and the failover was over",
    ),
    "what a node was given waits there": Mutant([(worker.Worker, "_attempt", off_time.attempt_later)], {sim_checks.I8}),
    # runs
    "a report under an old token counts": Mutant(
        [handled(Finish, off_runs.finish_under_any_token)], {sim_checks.I3}, says="under old token"
    ),
    "a target's word under an old token counts": Mutant(
        [(remote, "_current", off_runs.any_word_counts)], {sim_checks.I3}
    ),
    "a target's word counts after the end": Mutant(
        [handled(Conclude, off_apply.conclude_what_has_ended)], {sim_checks.I2}, says="had ended ({}) and is"
    ),
    "a target's word counts between two attempts": Mutant(
        [handled(Conclude, off_apply.conclude_what_waits)], {sim_checks.I2}, says="attempt {} of {} ended {}, then"
    ),
    "a target is told that its old token counts": Mutant(
        [handled(Conclude, off_apply.conclude_under_any_token)],
        {sim_targets.ENTRUSTED},
        says="under a token that is older than its own",
    ),
    "a target is told that its second word counts": Mutant(
        [handled(Conclude, off_apply.conclude_again)], {sim_targets.ENTRUSTED}, says="and it ended {}"
    ),
    "what never started gives its attempt back": Mutant(
        [
            (runs, "unassign", off_apply.unassign_and_count_back),
            (leadership_entries, "unassign", off_apply.unassign_and_count_back),
        ],
        {sim_checks.I2},
        says="goes from attempt {} to",
    ),
    "a turn that was waited for is a retry": Mutant(
        [(State, "give_turn", off_apply.give_turn_as_a_retry)], {sim_checks.I2}, says="is tried again, its attempt"
    ),
    "what a target says meanwhile is forgotten": Mutant(
        [handled(Hear, off_runs.hear_and_forget)], {sim_targets.ENTRUSTED}, says="after its target spoke"
    ),
    "the start gate is open": Mutant(
        [(worker.Worker, "_is_valid", off_runs.gate_is_open)],
        {sim_checks.I6},
        scripts_runs.start_after_a_stall,
        size=3,
        times=SHORT,
        says="under token {}, and is",
    ),
    "heartbeats are answered without a round": Mutant(
        [(leases.LeaseKeeper, "__init__", off_runs.heartbeats_without_a_round)],
        {sim_checks.ONE_ATTEMPT},
        scripts_runs.isolation_of_a_leader_at_work,
        size=3,
        times=SHORT,
        given=[NO_FALLBACK],
        says="one runs on",
    ),
    "a refused token starts after all": Mutant(
        [(worker.Worker, "_refuse", off_runs.refuse_and_forget)],
        {sim_checks.REFUSED},
        scripts_runs.start_after_a_late_refusal,
        size=3,
        times=LONG,
        says="has refused",
    ),
    "a restart starts it again": Mutant(
        [(worker.Worker, "_look", off_runs.look_at_any_life), (worker.Worker, "gate", off_runs.gate_of_any_life)],
        {sim_checks.I2},
        scripts_runs.restart_in_the_midst,
        size=3,
        says=", and did on",
    ),
    "a leader fires what is not committed": Mutant(
        [(scheduler.Scheduler, "_propose", off_runs.fire_at_once)], {sim_checks.I6}
    ),
}


def story_of(name: str, seed: int) -> Story:
    mutant = MUTANTS[name]
    return Story(seed, script=mutant.script, size=mutant.size, times=mutant.times)


def play(name: str, seed: int, *, is_mended: bool = False) -> Violation | None:
    """What is found first in this seed without the mend; with it if `is_mended`."""
    mutant = MUTANTS[name]
    with replaced([*mutant.given, *([] if is_mended else mutant.replacements)]):
        return story_of(name, seed).run().violation


def is_as_promised(name: str, violation: Violation | None) -> bool:
    """Whether it is the checker, and the line of it, that must fire."""
    mutant = MUTANTS[name]
    return violation is not None and violation.checker in mutant.checkers and is_said(mutant.says, violation.args[1])

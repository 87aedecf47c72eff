"""What shows that each mend and each guard is needed: an entry of mutants.py, or the test that stands in for one.

A mend has no entry, but a test, where no checker of the simulation can tell it from its absence: it is about real
descriptors, processes and sockets, about bytes that no node sends (rows 6 and 8), or about what costs time, office or
readiness and breaks no promise (11, pre-votes in 14, 16, 22, 24; who stands when, in the elections).  Of 11, 14, 16
and the elections the test shows the absence, too.

Likewise each branch of the guards of which no sweep is asked: the test that takes it.
"""

from __future__ import annotations

ROWS: dict[str, tuple[str, ...]] = {
    "1 a snapshot moves no commit index": ("an offer moves the commit index",),
    "2 only a real conflict cuts, only what was checked is claimed": (
        "whatever follows is cut",
        "all that is held is claimed",
        "a commit index beyond what was checked counts",
    ),
    "3 a snapshot keeps the tail; a restart aligns the two": (
        "a snapshot clears an acknowledged tail",
        "the journal does not join its snapshot",
        "a snapshot is not synced",
    ),
    "4 answers of other terms and connections": (
        "answers of earlier terms count",
        "tests/raft/test_transport.py::test_replaced_connection_is_silent",
    ),
    "5 nothing counts before it is synced; damage is seen": (
        "acknowledged before it is synced",
        "a leader counts itself before it has synced",
        "a candidate asks before it has synced",
        "no fsync",
        "no checksum",
        "whatever cannot be read is a torn end",
    ),
    "6 no pickle, no strangers": (
        "tests/raft/test_seam.py::test_pickle_cannot_be_reached",
        "tests/raft/test_transport_liars.py::test_words_of_a_stranger_who_knows_the_secret",
        "tests/raft/test_hostile_member.py::test_a_member_that_speaks_nonsense",
    ),
    "7 not written is certain, and told once": (
        "unknown is called not written",
        '"not written" at a step-down, before a newer leadership entry has applied',
        "not written is said of what a snapshot holds",
        "apply raises",
        "tests/raft/test_engine.py::test_an_entry_that_cannot_be_applied_ends_the_process",
    ),
    "8 the chunked path is refused": (
        "an offer does not fit",
        "tests/raft/test_guard.py::test_a_message_that_does_not_fit_is_refused",
        "tests/raft/test_engine.py::test_large_commands_travel_like_small_ones",
    ),
    "9 who loads a snapshot is heard": (
        "an offer is not answered",
        "tests/raft/test_pulls.py::test_at_most_a_megabyte_is_outstanding",
    ),
    "10 a leader that was left alone has no licence": (
        "an entry of any epoch counts",
        "claimed before it is committed",
        "tests/raft/test_engine.py::test_a_command_of_a_deposed_leader_is_not_written_for_certain",
    ),
    "11 driven by events": (
        "tests/raft/test_mends_off.py::test_a_command_waits_for_nothing_but_the_network",
        "tests/raft/test_mends_off.py::test_an_engine_that_is_not_driven_by_events_is_noticed",
        "tests/raft/test_engine.py::test_commands_in_flight_together_are_all_applied_once",
    ),
    "12 reads ask a round that begins after they came": (
        "reads without a round",
        "stale reads are called linearizable",
        "a shared read round for clients",
        "tests/raft/test_engine_reads.py::test_whoever_comes_while_a_question_is_out_waits_for_the_next",
    ),
    "13 epochs and tokens of our own": ("an entry of any epoch counts", "a report under an old token counts"),
    "14 pre-votes, and nobody is stuck in a term of its own": (
        "an old leader hears nothing",
        "tests/raft/test_mends_off.py::test_a_follower_that_comes_back_deposes_nobody",
        "tests/raft/test_mends_off.py::test_an_election_without_pre_votes_is_noticed",
        "tests/raft/test_election.py::test_whoever_hears_the_leader_refuses",
        "tests/cluster/test_network.py::test_in_an_idle_cluster_too_a_cut_deposes_nobody",
    ),
    "15 refusals rewind once a probe": (
        "contradicting indexes, each refusal rewinds",
        "refusals are not heard",
        "tests/raft/test_engine_faults.py::test_contradicting_refusals_are_noticed",
    ),
    "16 readiness is a barrier": (
        "tests/raft/test_mends_off.py::test_a_node_that_is_ready_has_caught_up",
        "tests/raft/test_mends_off.py::test_readiness_without_a_barrier_is_noticed",
        "tests/raft/test_engine.py::test_a_node_is_ready_when_it_has_caught_up",
    ),
    "17 members change one at a time; learners do not count": (
        "learners count",
        "changes of the members overlap",
        "tests/raft/test_engine_members.py::test_a_removed_node_is_told_and_ends",
    ),
    "18 votes and disks are known for ever": (
        "votes are forgotten",
        "nothing vouches for a vote",
        "an empty directory is admitted and votes",
        "a replaced directory counts for its successor",
        "tests/raft/test_engine_members.py::test_a_replaced_disk_that_comes_back_makes_no_majority",
        "a majority forms a cluster",
        "a replaced node believes its own count of lives",
    ),
    "19 mixed releases": ("what a later release wrote is taken",),
    "20 connections end, and the listener lives": (
        "tests/raft/test_transport.py::test_half_open_connection_ends",
        "tests/raft/test_descriptors.py::test_a_node_without_descriptors",
    ),
    "21 what is installed has been verified": (
        "a rotten snapshot is believed",
        "the journal does not join its snapshot",
        "tests/raft/test_journal_compaction.py::test_align_refuses_a_gap",
    ),
    "22 the loop is not held; the log is cut in time": (
        "tests/raft/test_scribe.py::test_a_child_writes_the_state_of_the_fork_while_the_loop_goes_on",
        "tests/cluster/test_snapshots.py::"
        "test_a_follower_that_was_away_for_long_costs_the_others_nothing_and_comes_back",
    ),
    "23 a child holds nothing of its parent's": (
        "tests/raft/test_scribe.py::test_a_killed_leaders_sockets_end_at_once_and_so_does_its_child",
    ),
    "24 the lead is handed over under load": (
        "tests/raft/test_engine.py::test_the_lead_is_handed_over_under_load",
        "tests/raft/test_handover.py::test_a_successor_that_does_not_stand_holds_proposals_for_no_longer",
        "tests/cluster/test_handover.py::test_fires_go_on_while_the_lead_is_handed_over",
    ),
}

ELECTIONS: dict[str, tuple[str, ...]] = {
    "the end and a refused reconnect are a death": (
        "tests/raft/test_mends_off.py::test_a_dead_leader_is_no_silent_one",
        "tests/raft/test_mends_off.py::test_an_end_that_is_no_death_is_noticed",
        "tests/raft/test_election.py::test_the_first_survivor_of_a_dead_leader_stands_at_once",
        "tests/raft/test_election.py::test_a_broken_connection_alone_is_no_death",
        "tests/raft/test_election.py::test_a_refusal_without_a_lost_connection_is_no_death",
        "tests/raft/test_election.py::test_a_refusal_by_a_leader_whose_connection_did_not_end_here_is_no_death",
        "tests/raft/test_election.py::test_a_leader_that_comes_back_in_another_life_is_dead",
        "tests/raft/test_engine.py::test_the_survivors_of_a_dead_leader_go_on_at_once",
    ),
    "rank x 30 ms": (
        "tests/raft/test_mends_off.py::test_the_second_in_rank_leaves_the_first_one_its_head_start",
        "tests/raft/test_mends_off.py::test_an_election_without_ranks_is_noticed",
        "tests/raft/test_election.py::test_the_next_survivor_gives_the_first_one_a_head_start",
        "tests/raft/test_election.py::test_a_survivor_that_is_gone_too_has_no_rank",
    ),
    "whoever grants holds back": (
        "tests/raft/test_mends_off.py::test_who_has_granted_a_pre_vote_lets_it_be_used",
        "tests/raft/test_mends_off.py::test_a_grant_that_holds_nothing_back_is_noticed",
        "tests/raft/test_election.py::test_whoever_grants_holds_back",
        "tests/raft/test_election.py::test_of_two_that_stand_one_gives_way",
    ),
    "who hears the leader refuses": (
        "tests/raft/test_mends_off.py::test_one_cut_connection_deposes_nobody",
        "tests/raft/test_mends_off.py::test_a_pre_vote_of_who_hears_the_leader_is_noticed",
        "tests/raft/test_election.py::test_whoever_hears_the_leader_refuses",
        "tests/raft/test_election.py::test_a_leader_grants_nothing",
        "tests/cluster/test_network.py::test_in_an_idle_cluster_too_a_cut_deposes_nobody",
    ),
    "a failed fsync ends the process": (
        "a failed fsync is tried again",
        "tests/cluster/test_bad_disks.py::test_a_node_whose_disk_fails_ends_and_the_others_go_on",
    ),
}

CORE: dict[str, tuple[str, ...]] = {
    "epoch check": ("an entry of any epoch counts",),
    "start gate": ("the start gate is open",),
    "digests": ("no node stops by its digest",),
    "watermark": ("the watermark is not looked at",),
    "token check": ("a report under an old token counts",),
}

SEEDED_BUGS: dict[str, tuple[str, ...]] = {
    "fire on 'I am leader'": ("a leader fires what is not committed",),
    "claim not committed": ("claimed before it is committed",),
    "stale epoch accepted": ("an entry of any epoch counts",),
    "watermark lost in a snapshot": ("the watermark is lost in a snapshot",),
    "no fsync": ("no fsync",),
    "no CRC": ("no checksum",),
    "stale reads as linearizable": ("stale reads are called linearizable",),
    "edit half applied": ("an edit is half applied",),
    "re-fire on restart": ("a restart starts it again",),
    "skip without a record": ("what overlaps leaves no row", "missed times leave no row"),
    "pause forgotten on restart": ("a pause is forgotten on restart",),
    "vote not stored": ("votes are forgotten",),
}

NAMED: dict[str, tuple[str, ...]] = {
    "not written answered for what a snapshot holds": ("not written is said of what a snapshot holds",),
    "a heartbeat answered without a quorum round": ("heartbeats are answered without a round",),
    "a refused token that starts after all": ("a refused token starts after all",),
    "formation by a majority": ("a majority forms a cluster",),
}

# ---- branches of the guards that no sweep is asked for ---------------------------------------------------------------

WRONG: dict[str, tuple[str, ...]] = {  # peers, executors, settings or operators that are wrong, or lie
    "vote not counted (twice)": (
        "tests/raft/test_seam.py::test_a_voter_counts_once_an_election_and_again_in_the_next",
    ),
    "not admitted (our own name)": ("tests/raft/test_membership.py::test_strangers_stay_out_with_a_reason",),
    "not admitted (another cluster)": (
        "tests/raft/test_membership.py::test_strangers_stay_out_with_a_reason",
        "tests/raft/test_engine.py::test_a_node_of_another_cluster_stays_out",
    ),
    "not admitted (second disk of a name)": (
        "tests/raft/test_membership.py::test_two_disks_under_one_name_do_not_both_come_in",
    ),
    "hello refused (another name than was proved)": (
        "tests/raft/test_transport_liars.py::test_a_peer_whose_every_word_is_another_fills_no_log",
    ),
    "hello refused (our own name)": ("tests/raft/test_transport.py::test_own_name",),
    "hello refused (earlier life)": ("tests/raft/test_transport.py::test_an_older_life_cannot_replace_a_newer",),
    "start refused (asked again)": ("tests/scenarios/test_gate.py::test_nobody_asks_twice",),
}

_GATE = "tests/scenarios/test_gate.py::test_the_gate_refuses_for_each_reason"
RARE: dict[str, tuple[str, ...]] = {  # what two things have to cross for, within milliseconds: in few seeds, or none
    "offer of no member": ("tests/raft/test_seam.py::test_whoever_is_no_member_here_may_lead_or_stand",),
    "vote request of no member": ("tests/raft/test_seam.py::test_whoever_is_no_member_here_may_lead_or_stand",),
    "answer of no member": (
        "tests/raft/test_seam.py::test_whoever_is_no_member_here_neither_elects_nor_counts_nor_commands",
    ),
    "vote of no member": (
        "tests/raft/test_seam.py::test_whoever_is_no_member_here_neither_elects_nor_counts_nor_commands",
    ),
    "pre-vote not counted (another directory)": (
        "tests/raft/test_election.py::test_an_answer_from_another_directory_than_the_seats_does_not_count",
        "tests/raft/test_engine_members.py::test_a_replaced_disk_that_comes_back_makes_no_majority",
    ),
    "echo not counted (another directory)": (
        "tests/raft/test_engine_reads.py::test_an_echo_from_another_directory_than_the_seats_confirms_nothing",
    ),
    "order to stand of no member": (
        "tests/raft/test_seam.py::test_whoever_is_no_member_here_neither_elects_nor_counts_nor_commands",
    ),
    "vote not counted (another term)": (
        "tests/raft/test_seam.py::test_a_voter_counts_once_an_election_and_again_in_the_next",
    ),
    "vote not counted (no voter)": ("tests/raft/test_seam.py::test_a_learner_elects_nobody",),
    "order to stand refused (no voter)": (
        "tests/raft/test_seam.py::test_a_node_that_may_not_vote_or_stand_does_neither",
    ),
    "not admitted (awaited, but not empty)": (
        "tests/raft/test_membership.py::test_an_awaited_member_comes_with_an_empty_directory",
    ),
    "hello refused (no peer)": ("tests/raft/test_transport.py::test_not_a_member",),
    "start refused (told to stop)": ("tests/scenarios/test_gate.py::test_whoever_was_told_to_stop_does_not_start",),
    "start refused (run has gone on)": (_GATE,),
    "start refused (run of another life)": (_GATE,),
    "start refused (licence of another epoch)": (_GATE,),
    "start refused (licence ahead of what has applied)": (_GATE,),
    "start refused (licence is over)": (_GATE,),
    "start refused (job is gone)": (_GATE,),
    "start refused (another kind of slot)": (
        _GATE,
        "tests/scenarios/test_attack.py::test_a_run_never_starts_as_another_kind_than_the_slot_that_it_holds",
    ),
}

# What is a bad message: dropped, told, and counted by its sender.  One of them fails a seed, so no dice send any.
BAD_MESSAGES: dict[str, tuple[str, ...]] = {
    "a field that does not fit": (
        "tests/raft/test_guard.py::test_a_message_that_does_not_fit_is_refused",
        "tests/raft/test_guard.py::test_an_answer_that_does_not_fit_is_refused",
        "tests/raft/test_guard.py::test_anything_at_all_is_refused_in_the_same_way",
    ),
    "a term that no cluster came to": (
        "tests/raft/test_guard.py::test_a_term_is_adopted_unless_none_could_follow_it",
        "tests/raft/test_seam.py::test_a_term_that_no_cluster_came_to_is_not_adopted",
    ),
    "a second leader of a term": (
        "tests/raft/test_seam.py::test_two_leaders_of_one_term_are_not_believed",
        "tests/raft/test_seam.py::test_a_follower_believes_one_leader_a_term",
    ),
    "an answer beyond the log's end": (
        "tests/raft/test_guard.py::test_an_answer_about_entries_that_do_not_exist_is_refused",
        "tests/raft/test_seam.py::test_an_answer_beyond_the_end_of_the_log_is_a_bad_message",
    ),
    "an offer of an entry beyond its sender's term": (
        "tests/raft/test_seam.py::test_an_offer_of_an_entry_beyond_its_senders_term_is_none",
    ),
}

BRANCHES = {**WRONG, **RARE}

ALL = {**ROWS, **ELECTIONS, **CORE, **SEEDED_BUGS, **NAMED, **BRANCHES, **BAD_MESSAGES}

# Lines by which the simulation's checks fail (fails.py) that are the first in no mutant: another line always comes
# before them.  They stay: they would be the first if that one were wrong.
SUBSUMED: dict[str, str] = {
    "the watch of {} sees": "a node logs what its watch finds as an error in that very step, which is `{} logs {} {}`: "
    "`a node counts what is owed too late`",
    "write {} at {} was acknowledged, and is durable on": "nothing is acknowledged that has not applied somewhere "
    "(`was acknowledged at {} and stands at`), and as it applies first, the same is asked of the same entry: "
    "`has applied {}, which is durable on`; what a disk loses after that, while a leader counts on it, is "
    "`counts on entry {} of`",
    "entry {} makes {} of {}": "a node looks at each configuration as it puts it into its log, before anybody has "
    "committed that: `entry {} of {} makes`",
}

"""/metrics: a few figures of this node for Prometheus, read from what it knows when it is asked."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from raftcron.api.context import NODE, NodeContext
from raftcron.core.model import RUN_STATES
from raftcron.runtime.alerts import Alerts
from raftcron.runtime.conservation import Conservation


class _Figures:
    """One scrape."""

    def __init__(self, node: NodeContext, run_counts: dict[str, int]) -> None:
        self._node = node
        self._run_counts = run_counts

    def collect(self) -> Iterator[Metric]:
        node, state, status = self._node, self._node.machine.state, self._node.log.status()
        gauges = (
            ("raftcron_is_leader", "1 if this node leads and may propose", status.leading_epoch is not None),
            ("raftcron_has_leader", "1 if this node knows a leader", status.leader is not None),
            ("raftcron_epoch", "Leadership entries applied", state.epoch),
            ("raftcron_applied_index", "Last log index applied on this node", state.index),
            ("raftcron_commit_index", "Last log index that this node knows committed", status.commit_index),
            ("raftcron_jobs", "Jobs", len(state.jobs)),
            ("raftcron_catch_up_owed", "Starts of missed times still owed, each part for itself", node.catch_up.owed),
            ("raftcron_catch_up_started", "Those started since this leader took over", node.catch_up.started),
            ("raftcron_loop_stall_seconds_max", "Longest time that something held the loop", node.loop_stall_seconds()),
        )  # fmt: skip
        yield from _clocks(node)
        if node.conservation is not None:
            yield from _conservation(node.conservation)
        if node.alerts is not None:
            yield from _alerts(node.alerts)
        for name, text, figure in gauges:
            yield GaugeMetricFamily(name, text, value=figure)
        runs = GaugeMetricFamily("raftcron_runs", "Run records by state", labels=["state"])
        for word in sorted(RUN_STATES):
            runs.add_metric([word], self._run_counts.get(word, 0))
        yield runs
        yield CounterMetricFamily(
            "raftcron_fires", "Scheduled times that became runs, as applied by this process", value=node.listing.fires
        )


def _alerts(alerts: Alerts) -> Iterator[Metric]:
    figures = alerts.figures
    yield GaugeMetricFamily("raftcron_alerts_pending", "Alerts on their way from this node", value=alerts.pending)
    for name, text, figure in (
        ("delivered", "Alerts that a target has taken from this process", figures.delivered),
        ("failed", "Alerts that were given up", figures.failed),
        ("gaps", "Times that events left before alerts were made of them", figures.missed),
    ):
        yield CounterMetricFamily(f"raftcron_alerts_{name}", text, value=figure)


def _conservation(watch: Conservation) -> Iterator[Metric]:
    for name, text, figure in (
        (
            "difference",
            "Scheduled times that jobs decided too many or too few, by a recount; 0 when well",
            watch.difference,
        ),
        (
            "overdue_jobs",
            "Jobs with a time undecided 5 s after it was due, of those sampled; 0 when well",
            watch.overdue,
        ),
    ):
        yield GaugeMetricFamily(f"raftcron_conservation_{name}", text, value=figure)
    for name, text, figure in (
        ("checked", "Jobs recounted by this process", watch.checked),
        ("left_out", "Jobs that cannot be recounted, or not in little time", watch.left_out),
    ):
        yield CounterMetricFamily(f"raftcron_conservation_{name}", text, value=figure)


def _clocks(node: NodeContext) -> Iterator[Metric]:
    clocks = node.clocks
    yield GaugeMetricFamily(
        "raftcron_clock_trusted",
        "1 if this node trusts a time, and nothing speaks against it",
        value=node.time.ahead_ms is not None and not clocks.is_untrusted,
    )
    offsets = GaugeMetricFamily(
        "raftcron_clock_offset_seconds", "Clocks against the time that this node trusts", labels=["member"]
    )
    for member in node.log.status().members:
        offset = clocks.offset_ms(member.name)
        if offset is not None:
            offsets.add_metric([member.name], offset / 1000)
    yield offsets
    jumps = CounterMetricFamily(
        "raftcron_clock_jumps",
        "Jumps of trusted time, forward and backward, and of this node's clock (own)",
        labels=["direction"],
    )
    for direction in ("forward", "backward", "own"):
        jumps.add_metric([direction], clocks.jumps[direction])
    yield jumps
    yield CounterMetricFamily(
        "raftcron_clock_hand_overs", "Leads that were given away because of the clock", value=clocks.hand_overs
    )


async def get(request: web.Request) -> web.Response:
    node = request.app[NODE]
    registry = CollectorRegistry()
    registry.register(_Figures(node, await node.listing.run_counts()))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

// The first view: is all well, what runs, what went wrong, what comes next.

import { hasLeader, node, read, voters } from "./node.js";
import { ACTIVE_STATES, BAD_STATES, both, card, command, count, empty, isActive, jobLink, loaded, state, table, when } from "./parts.js";
import { merged, runs } from "./runtable.js";
import { h } from "./vdom.js";
import { members } from "./memberlist.js";
import { load as wrong, told } from "./wrong.js";

const SHOWN = 8;
const COMING = 8;

export function overview(page) {
  const isRun = (event) => event.kind === "run";
  const isJob = (event) => event.kind === "job";
  const rows = (states, query = {}) => async (signal) => {
    const lists = await Promise.all(states.map((name) => read("/v1/runs", { state: name, limit: SHOWN, ...query }, signal)));
    return { items: newest(lists.flatMap((list) => list.items)), total: sum(lists.map((list) => list.total)) };
  };
  const active = page.source(rows(ACTIVE_STATES, { limit: 50, count: "1" }), { wants: isRun, rest: 2_000 });
  const bad = page.source(wrong, { wants: (event) => isRun(event) && BAD_STATES.includes(event.state), rest: 2_000 });
  const skipped = page.source(rows(["skipped"]),
    { wants: (event) => isRun(event) && event.state === "skipped", rest: 2_000 });
  const jobs = page.source(counted, { wants: isJob, rest: 2_000 });
  const coming = page.source((signal) => read("/v1/jobs", { sort: "next_fire_at", limit: COMING }, signal),
    { wants: (event) => isJob(event) || isRun(event), rest: 2_000 });
  page.onEvent((event) => {
    if (!isRun(event)) return;
    keep(active, event, isActive);
    keep(bad, event, (run) => BAD_STATES.includes(run.state));
    keep(skipped, event, (run) => run.state === "skipped");
  });
  return {
    title: "Overview",
    draw: () => [
      h("h1", { class: "unseen" }, "Overview"),
      h("div", { class: "tiles" }, tiles({ active, bad, jobs, coming })),
      jobs.isLoaded && jobs.value.all === 0
        ? [firstJob(), card("Nodes", { id: "nodes", aside: h("a", { href: "#/cluster" }, "More of them") }, members({ isBrief: true }))]
        : h("div", { class: "columns" },
        h("div", {}, card("Went wrong", { id: "bad", aside: ["All ", BAD_STATES.map(allOf)] }, loaded(bad, wentWrong)),
        card("Running and waiting", { id: "active", aside: h("a", { href: "#/runs" }, "All runs") },
          loaded(active, ({ items }) => (items.length ? runs("Running and waiting", items.slice(0, 50), { isShort: true })
            : empty("Nothing runs at the moment.")))),
        card("Skipped lately", { id: "skipped", aside: h("a", { href: "#/runs?state=skipped" }, "All skipped") },
          loaded(skipped, ({ items }) => (items.length ? runs("Skipped lately", items.slice(0, SHOWN), { isShort: true })
            : empty("No scheduled time was skipped."))))),
        h("div", {}, card("Next", { id: "next", aside: h("a", { href: "#/jobs?sort=next_fire_at" }, "All by time") },
          loaded(coming, next)),
        card("Nodes", { id: "nodes", aside: h("a", { href: "#/cluster" }, "More of them") }, members({ isBrief: true })))),
    ],
  };
}

async function counted(signal) {
  const [all, paused, ended] = await Promise.all([
    read("/v1/jobs", { limit: 1, count: "1" }, signal),
    read("/v1/jobs", { limit: 1, count: "1", state: "paused" }, signal),
    read("/v1/jobs", { limit: 1, count: "1", state: "ended" }, signal),
  ]);
  return { all: all.total, paused: paused.total, ended: ended.total, active: all.total - paused.total - ended.total };
}

const newest = (rows) => rows.sort((one, other) => other.log_index - one.log_index);
const sum = (numbers) => numbers.reduce((before, number) => before + (number ?? 0), 0);

// A list follows an event at once; the next load puts right what cannot be told from it.
function keep(source, event, belongs) {
  if (!source.isLoaded) return;
  const { items, total } = source.value;
  const place = items.findIndex((run) => run.id === event.id);
  const run = merged(items[place] ?? null, event);
  const rest = items.filter((_, index) => index !== place);
  const change = (belongs(run) ? 1 : 0) - (place >= 0 ? 1 : 0);
  source.value = { ...source.value, items: belongs(run) ? newest([run, ...rest]) : rest, total: total + change };
}

function tiles({ active, bad, jobs, coming }) {
  const { cluster } = node;
  const catchUp = cluster?.catch_up ?? { owed: 0, started: 0 };
  const alive = voters().filter((member) => member.alive).length;
  const isWell = node.isAnswering && hasLeader();
  const running = active.value?.items.filter((run) => run.state === "running" || run.state === "cancelling").length ?? 0;
  const first = coming.value?.items[0];
  const found = bad.isLoaded ? told(bad.value) : null;
  return [
    tile("Cluster", cluster === null ? "…" : hasLeader() ? `${cluster.leader} leads` : "no leader",
      cluster === null ? "" : `${alive} of ${count(voters().length, "voter")} heard`, cluster === null ? "" : isWell && alive === voters().length ? "well" : isWell ? "warn" : "bad", "#/cluster"),
    tile("Wrong in 24 h", found ? found.count.toLocaleString("en") + (found.isMore ? " or more" : "") : "…",
      found?.isMore ? "failed, timed out or lost" : "of the runs still kept", found ? (found.count ? "bad" : found.areAllJobs ? "well" : "") : ""),
    tile("Running", active.isLoaded ? running.toLocaleString("en") : "…",
      active.isLoaded ? `${(active.value.total - running).toLocaleString("en")} waiting` : "", "", "#/runs?state=running"),
    tile("Jobs", jobs.isLoaded ? jobs.value.all.toLocaleString("en") : "…",
      jobs.isLoaded ? `${jobs.value.paused.toLocaleString("en")} paused, ${jobs.value.ended.toLocaleString("en")} ended` : "",
      "", "#/jobs"),
    catchUp.owed > 0
      ? tile("Catching up", catchUp.owed.toLocaleString("en"), `runs owed; ${catchUp.started.toLocaleString("en")} started`, "warn", "#/runs")
      : tile("Next fire", first?.next_fire_at ? both(first.next_fire_at).children[0] : "–", first?.next_fire_at ? first.name : "none is due", "", "#/jobs?sort=next_fire_at"),
  ];
}

// Without `href` where no one list has what it counts.
function tile(title, value, more, kind, href = null) {
  return h(href === null ? "div" : "a", { class: `tile ${kind}`, href }, h("span", { class: "what" }, title), h("span", { class: "value" }, value),
    h("span", { class: "more" }, more));
}

// A list of runs shows one state.
const allOf = (name, place) => [place > 0 && ", ", h("a", { href: `#/runs?state=${name}` }, name.replaceAll("_", " "))];

function wentWrong(value) {
  const found = told(value);
  return [
    found.runs.length
      ? runs("Went wrong", found.runs.slice(0, SHOWN), { isShort: true, remarks: "What was wrong" })
      : empty("Of the runs still kept none failed, timed out or was lost in the last 24 hours.",
        found.areAllJobs && !found.unshown.length && h("p", {}, "Nor did any job have its last failure then.")),
    found.unshown.length > 0 && [
      h("p", { class: "hint" }, "Jobs whose last failure lies within the last 24 hours, and no run is kept that shows it:"),
      table("Failures without a run", [
        ["Job", "main", (job) => jobLink(job.name)],
        ["Last failure", "narrow", (job) => when(job.stats.last_failure_at)],
        ["In its life", "rest", ({ stats }) => BAD_STATES.map((name) => stats[name] > 0 && [state(name, stats[name].toLocaleString("en")), " "])],
      ], found.unshown.slice(0, SHOWN), (job) => job.name),
      found.unshown.length > SHOWN && h("p", { class: "hint" }, `And ${count(found.unshown.length - SHOWN, "job")} more.`),
    ],
    !found.areAllJobs && h("p", { class: "hint" }, "There are more jobs than are looked through here for failures whose runs have left; each job's figures tell of its last one."),
  ];
}

function next({ items }) {
  const rows = items.filter((job) => job.next_fire_at);
  if (!rows.length) return empty("No job has a time ahead.");
  return table("Next fires", [
    ["When", "main", (job) => both(job.next_fire_at, job.timezone)],
    ["Job", "main", (job) => jobLink(job.name)],
    ["Last", "narrow", (job) => (job.last_run ? state(job.last_run.state) : "–")],
  ], rows, (job) => job.name);
}

function firstJob() {
  return empty("There is no job yet.",
    h("p", {}, "Make the first one ", h("a", { href: "#/new" }, "here"), ", or on a command line:"),
    command(`curl -sS -X PUT ${location.origin}/v1/jobs/hello -H 'Content-Type: application/json' \\
  -d '{"schedule": "@every 10s", "executor": {"type": "http", "url": "http://127.0.0.1:9000/hook"}}'`),
    h("p", {}, "A crontab, or the jobs of Kubernetes or Dkron, can be taken over:"),
    command(`raftcron import crontab FILE | raftcron job apply --addr ${location.origin} -f -`));
}

// Rows of runs, alike wherever they stand, and how an event changes them without asking again.

import { duration, now } from "./clock.js";
import { count, isActive, jobLink, runLink, state, table, when } from "./parts.js";
import { h } from "./vdom.js";

// What an event says of a run, on top of what was known of it.
export function merged(known, event) {
  const run = { ...known };
  for (const name of ["id", "job", "state", "reason", "cause", "scheduled_time", "attempt", "fencing_token", "node",
    "error", "error_kind", "blocked_by"]) run[name] = event[name];
  if (event.count !== null) run.count = event.count;
  if (event.state === "running" && !(known?.state === "running" && known.attempt === event.attempt)) {
    run.started_at = event.at;
  }
  run.finished_at = isActive(run) ? null : event.at;
  run.log_index = known?.log_index ?? event.index;
  return run;
}

// Of a part's id that of its parent; of any other run's its own.
export const wholeOf = (id) => id.split(".")[0];

export function elapsed(run) {
  if (!run.started_at) return null;
  return (run.finished_at ? Date.parse(run.finished_at) : now()) - Date.parse(run.started_at);
}

export function runs(caption, rows, { withJob = true, isShort = false, remarks = "Remarks" } = {}) {
  return table(caption, [
    ["State", "narrow", (run) => state(run.state, run.reason)],
    ...(withJob ? [["Job", "main", (run) => jobLink(run.job)]] : []),
    ["Scheduled", "narrow", (run) => [runLink(run.id, run.count > 1 ? span(run) : when(run.scheduled_time)), division(run)]],
    ["Took", isShort ? "wide narrow number" : "narrow number", (run) => (run.started_at ? duration(elapsed(run)) : "–")],
    ...(isShort ? [] : [["Late", "wide narrow number", (run) => late(run)]]),
    ["Node", "wide narrow", (run) => run.node ?? "–"],
    ...(isShort ? [] : [["Cause", "wide narrow", (run) => h("span", {}, (run.cause ?? "").replaceAll("_", " "),
      run.attempt > 1 && ` · attempt ${run.attempt}`)]]),
    [remarks, "wide rest", (run) => remark(run)],
  ], rows, (run) => run.id);
}

const span = (run) => [count(run.count, "time"), run.first && [", ", when(run.first), " to ", when(run.last)]];

// Which part of a divided run it is, or how many it has; an event does not tell how many shards there are.
function division(run) {
  const part = run.id.slice(wholeOf(run.id).length + 1);
  const text = run.children ? `parent of ${count(run.children.length, "part")}`
    : part && (run.shard_count ? `shard ${run.shard_index} of ${run.shard_count}` : `part ${part}`);
  return text && h("div", { class: "dim" }, text);
}

function late(run) {
  if (run.lateness_ms === null || run.lateness_ms === undefined) return "–";
  return duration(run.lateness_ms);
}

function remark(run) {
  if (run.error) return h("span", { class: "error", title: run.error }, run.error);
  if (run.blocked_by) return ["blocked by ", runLink(run.blocked_by, "a run")];
  if (run.replaced_by) return ["replaced by ", runLink(run.replaced_by, "a run")];
  if (run.missed_count) return `stands for ${count(run.missed_count, "missed time")}`;
  if (run.retry_of) return ["again, after ", runLink(run.retry_of, "a run")];
  return "";
}


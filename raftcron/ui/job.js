// One job: what it says, when it fires, what became of it, and what may be done to it.

import { Problem, path, write } from "./api.js";
import { backfill, pause, remove, resume, runNow, skipNext } from "./actions.js";
import { duration, here, utc } from "./clock.js";
import { pretty, definitionOf } from "./definition.js";
import { may, node, read } from "./node.js";
import { both, button, card, count, empty, facts, jobLink, loaded, state, table, when } from "./parts.js";
import { runs } from "./runtable.js";
import { whyForm } from "./why.js";
import { h } from "./vdom.js";

const HISTORY = 50;

export function job(page) {
  const name = page.parts[1];
  const ours = (event) => (event.kind === "run" && event.job === name) || (event.kind === "job" && event.name === name);
  const source = page.source((signal) => read(path("jobs", name), {}, signal), { wants: ours });
  const coming = page.source((signal) => read(path("jobs", name, "next"), { count: 10 }, signal), { wants: ours, rest: 2_000 });
  const history = page.source((signal) => read(path("jobs", name, "runs"), { limit: HISTORY }, signal), { wants: ours });
  const why = whyForm(page, name);
  let words = null;
  let explained = 0;

  // The schedule in words; it needs no quorum and changes with the revision alone.
  async function explain(found) {
    explained = found.revision;
    const body = { schedule: found.schedule, timezone: found.timezone, dst: found.dst, hash_key: found.hash_key ?? name, count: 0 };
    try {
      words = await write("POST", "/v1/schedules:explain", { body });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      words = { description: error.detail, notes: [] };
    }
    page.draw();
  }

  return {
    title: name,
    draw() {
      if (source.value && explained !== source.value.revision && node.isAnswering) explain(source.value);
      return [
        h("div", { class: "head" }, h("h1", { class: "name" }, name), source.value && state(source.value.state),
          source.value && may("operate", name) && buttons(source.value)),
        loaded(source, (found) => [
          found.description && h("p", {}, found.description),
          found.state === "paused" && paused(found),
          h("div", { class: "columns" },
            h("div", {}, card("History", { id: "history", aside: h("a", { href: `#/runs?job=${encodeURIComponent(name)}` }, "All runs") },
              loaded(history, ({ items }) => (items.length ? runs("History", items, { withJob: false })
                : empty("It has not fired yet.", h("p", {}, "See when it will, beside this; or run it now."))))),
            card("Definition", { id: "definition" }, h("pre", { class: "code", tabindex: "0" }, pretty(definitionOf(found))))),
            h("div", {}, card("Schedule", { id: "schedule" }, described(found, words)),
              card("Coming fires", { id: "coming" }, loaded(coming, ({ items }) => ahead(items, found))),
              card("Why did it fire, or not?", { id: "why" }, why()),
              card("Figures", { id: "figures" }, figures(found)))),
        ]),
      ];
    },
  };
}

function buttons(found) {
  return h("div", { class: "buttons" },
    button("Run now", () => runNow(found.name), { kind: "primary" }),
    found.paused ? button("Resume", () => resume(found.name)) : button("Pause", () => pause(found.name)),
    button("Skip next", () => skipNext(found.name)),
    button("Backfill", () => backfill(found.name)),
    h("a", { class: "button", href: `#/jobs/${encodeURIComponent(found.name)}/edit` }, "Edit"),
    button("Delete", () => remove(found, () => (location.hash = "#/jobs")), { kind: "danger" }));
}

function paused(found) {
  return h("p", { class: "banner warn" }, h("strong", {}, "Paused"), found.pause_note && `: ${found.pause_note}`,
    found.pause_until && [" Until ", when(found.pause_until, { as: "full" }), ` ${here}, `, when(found.pause_until), "."]);
}

function described(found, words) {
  return [
    h("p", { class: "words" }, words?.description ?? "…"),
    facts(
      ["As written", h("code", {}, [found.schedule].flat().join("\n"))],
      ["Time zone", found.timezone],
      found.jitter !== "0s" && ["Jitter", found.jitter],
      found.exclude.length > 0 && ["Not on", found.exclude.join(", ")],
      found.after.length > 0 && ["After", found.after.map((one) => [jobLink(one.job), ` (${one.on}) `])],
      found.skips.length > 0 && ["Will be skipped", found.skips.map((at) => [when(at, { as: "full" }), " "])],
    ),
    words?.notes.length > 0 && h("ul", { class: "notes" }, words.notes.map((note) => h("li", {}, h("code", {}, note.code), " ", note.message))),
  ];
}

function ahead(items, found) {
  if (!items.length) {
    return empty(found.state === "paused" ? "None while it is paused." : found.after.length ? "It starts when other jobs end." : "No time lies ahead.");
  }
  return table("Coming fires", [
    ["When", "narrow", (one) => when(one.scheduled_time)],
    [found.timezone, "rest", (one) => [both(one.scheduled_time, found.timezone).children[2], one.due_at !== one.scheduled_time && [" due ", when(one.due_at)],
      one.notes.map((note) => h("div", { class: "dim" }, note.message ?? note.code))]],
  ], items, (one) => one.scheduled_time);
}

function figures(found) {
  const { stats } = found;
  const spread = (of) => (of ? `${duration(of.p50)} median, ${duration(of.p99)} p99, ${duration(of.max)} most (of ${of.count})` : "–");
  return facts(
    ["Fired, skipped", `${stats.fired.toLocaleString("en")}, ${stats.skipped.toLocaleString("en")}`, h("span", { class: "dim" }, " since ", when(stats.counted_from))],
    ["Ends", ["succeeded", "failed", "timed_out", "lost", "cancelled"].map((name) => [stats[name] > 0 && [state(name, stats[name].toLocaleString("en")), " "]])],
    ["Last success", when(stats.last_success_at)],
    ["Last failure", when(stats.last_failure_at), stats.consecutive_failures > 0 && h("span", { class: "state bad" }, ` ${count(stats.consecutive_failures, "failure")} in a row`)],
    ["Takes", spread(stats.durations_ms)],
    ["Late by", spread(stats.lateness_ms)],
    ["Decided through", when(stats.decided_through), h("span", { class: "dim" }, ` ${utc(Date.parse(stats.decided_through))}`)],
    ["Revision, owner", `${found.revision}, ${found.owner ?? "–"}`],
    ["Created, changed", when(found.created_at), ", ", when(found.updated_at)],
  );
}

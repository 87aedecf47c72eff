// One run: what became of it, attempt by attempt, and what it writes, live.

import { path } from "./api.js";
import { cancel, retry } from "./actions.js";
import { duration } from "./clock.js";
import { pretty } from "./definition.js";
import { may, read } from "./node.js";
import { output } from "./output.js";
import { button, card, count, facts, isActive, jobLink, loaded, runLink, state, table, when } from "./parts.js";
import { elapsed } from "./runtable.js";
import { h } from "./vdom.js";

export function run(page) {
  const id = page.parts[1];
  const source = page.source((signal) => read(path("runs", id), {}, signal),
    { wants: (event) => event.kind === "run" && event.id === id, rest: 500 });
  const written = output(page, id);
  return {
    title: `Run of ${source.value?.job ?? "…"}`,
    draw: () => [
      h("div", { class: "head" }, h("h1", {}, "Run ", source.value ? ["of ", jobLink(source.value.job)] : ""),
        source.value && state(source.value.state, source.value.reason),
        source.value && may("operate", source.value.job) && h("div", { class: "buttons" },
          isActive(source.value)
            ? button("Cancel", () => cancel(source.value), { kind: "danger" })
            : !(source.value.count > 1) && button("Run again", () => retry(source.value)))),
      loaded(source, (found) => [
        found.error && h("div", { class: "problem" }, h("strong", {}, found.error_kind ? `Error: ${found.error_kind}` : "Error"), h("p", { class: "pre" }, found.error)),
        h("div", { class: "columns" },
          h("div", {}, !(found.count > 1) && card("Output", { id: "output", aside: written.aside(found) }, written.draw(found)),
            found.attempts.length > 0 && card("Attempts", { id: "attempts" }, attempts(found))),
          h("div", {}, card("About it", { id: "about" }, about(found)))),
      ]),
    ],
  };
}

const attempts = (found) => table("Attempts", [
  ["", "narrow number", (one) => one.attempt],
  ["State", "narrow", (one) => state(one.state)],
  ["Node", "narrow", (one) => one.node ?? "–"],
  ["Started", "narrow", (one) => when(one.started_at, { as: "full" })],
  ["Took", "narrow number", (one) => duration(elapsed(one))],
  ["Token", "wide narrow number", (one) => one.fencing_token ?? "–"],
  ["Log", "wide rest", (one) => `${one.started_index ?? "–"} to ${one.finished_index ?? "–"}`],
], found.attempts, (one) => `${one.attempt}-${one.fencing_token}`);

function about(found) {
  const waited = found.started_at && found.queued_at ? Date.parse(found.started_at) - Date.parse(found.queued_at) : null;
  return facts(
    found.count > 1
      ? ["Stands for", count(found.count, "scheduled time"), ", ", when(found.first, { as: "full" }), " to ", when(found.last, { as: "full" })]
      : ["Scheduled", when(found.scheduled_time, { as: "full" }), " ", h("span", { class: "dim" }, when(found.scheduled_time))],
    found.due_at !== found.scheduled_time && ["Due", when(found.due_at, { as: "full" })],
    ["Cause", found.cause.replaceAll("_", " ")],
    found.lateness_ms !== null && ["Late by", duration(found.lateness_ms)],
    found.queued_at && ["Queued", when(found.queued_at, { as: "full" }), waited > 1_000 && ` waited ${duration(waited)}`],
    found.waits_for && ["Waits for", found.waits_for],
    found.started_at && ["Started", when(found.started_at, { as: "full" })],
    found.finished_at && ["Finished", when(found.finished_at, { as: "full" })],
    found.started_at && [isActive(found) ? "Runs for" : "Took", duration(elapsed(found))],
    found.node && ["Node", found.node],
    found.attempt > 0 && ["Attempt, token", `${found.attempt}, ${found.fencing_token ?? "–"}`],
    found.exit_code !== null && ["Exit code", String(found.exit_code)],
    found.status_code !== null && ["HTTP status", String(found.status_code)],
    found.missed_count > 0 && ["Stands also for", count(found.missed_count, "missed time"), " since ", when(found.missed_first, { as: "full" })],
    found.blocked_by && ["Blocked by", runLink(found.blocked_by)],
    found.replaced_by && ["Replaced by", runLink(found.replaced_by)],
    found.retry_of && ["Again, after", runLink(found.retry_of)],
    found.parent && ["Parent", runLink(found.parent)],
    found.shard_index !== null && ["Shard", `${found.shard_index} of ${found.shard_count}`],
    found.parts && ["Parts", Object.entries(found.parts).map(([name, number]) => `${number} ${name} `)],
    found.children?.length > 0 && ["Its parts", found.children.map((child) => h("div", {}, runLink(child)))],
    found.late_outcome && ["Came too late", found.late_outcome],
    found.answer_by && ["Its target answers by", when(found.answer_by, { as: "full" })],
    found.args !== null && ["Arguments", h("pre", { class: "code" }, pretty(found.args))],
    ["Decided", `index ${found.log_index}`, found.epoch ? `, epoch ${found.epoch}` : ""],
    ["Id", h("code", {}, found.id)],
    found.cause !== "manual" && found.job && ["", h("a", { href: `#/jobs/${encodeURIComponent(found.job)}?why=${encodeURIComponent(found.scheduled_time)}` }, "Why, in words")],
  );
}

// "Why did it fire at 02:30, or not?": the verdict of the cluster on any instant of a job.

import { path } from "./api.js";
import { fromField, here, now, toField } from "./clock.js";
import { read } from "./node.js";
import { facts, problem, runLink, when } from "./parts.js";
import { h } from "./vdom.js";

const MOODS = { fired: "well", skipped: "warn", not_due: "quiet", undecided: "waits", forgotten: "quiet" };

// A form and the answer below it.
export function whyForm(page, name) {
  const asked = page.query.get("why");
  let answer = null;
  let wrong = null;

  async function ask(at) {
    try {
      answer = await read(path("jobs", name, "why"), { at }, page.signal);
      wrong = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      wrong = error;
    }
    page.draw();
  }

  function submitted(event) {
    event.preventDefault();
    const text = new FormData(event.target).get("at");
    if (!text) return;
    const at = fromField(text);
    page.rewrite({ why: at });
    ask(at);
  }

  if (asked) ask(asked);
  const first = toField(asked && !Number.isNaN(Date.parse(asked)) ? Date.parse(asked) : now());
  return () => [
    h("form", { class: "inline", onsubmit: submitted },
      h("label", { for: "why-at" }, "At"),
      h("input", { id: "why-at", name: "at", type: "datetime-local", step: "1", required: true, value: first }),
      h("button", { type: "submit" }, "Why?"), h("span", { class: "hint" }, `Your time, ${here}.`)),
    problem(wrong),
    answer && h("div", { class: "answer", role: "status" },
      h("p", {}, h("span", { class: `state ${MOODS[answer.verdict] ?? "quiet"}` }, answer.verdict.replace("_", " ")),
        answer.reason && ` (${answer.reason})`),
      h("p", {}, answer.message),
      facts(
        answer.run_id && ["Run", runLink(answer.run_id)],
        answer.blocked_by && ["Blocked by", runLink(answer.blocked_by)],
        answer.scheduled_time && ["Scheduled", when(answer.scheduled_time, { as: "full" })],
        answer.log_index && ["Decided", `index ${answer.log_index}, epoch ${answer.epoch ?? "–"}, ${answer.node ?? "no node"}`],
      )),
  ];
}

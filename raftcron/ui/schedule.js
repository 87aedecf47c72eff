// Try a schedule before a job has it: what it means, when it would fire, what about it may surprise.

import { write } from "./api.js";
import { here } from "./clock.js";
import { card, empty, problem, table, when } from "./parts.js";
import { h } from "./vdom.js";

const TYPING_MS = 250;
const EXAMPLES = ["*/5 * * * *", "30 2 * * MON-FRI", "0 0 12 ? * 2#1", "@every 90s", "H H(0-5) * * *", "0 9 L * *", "30 2 29 3 *"];

export function schedule(page) {
  const asked = { schedule: page.query.get("schedule") ?? "30 2 * * MON-FRI", timezone: page.query.get("timezone") ?? here };
  let answer = null;
  let wrong = null;
  let round = 0;
  let timer;

  async function ask() {
    const mine = ++round;
    page.rewrite(asked);
    const schedules = asked.schedule.split("\n").map((text) => text.trim()).filter(Boolean);
    try {
      const found = await write("POST", "/v1/schedules:explain", { body: { schedule: schedules.length === 1 ? schedules[0] : schedules, timezone: asked.timezone || "UTC", count: 12 } });
      if (mine === round) [answer, wrong] = [found, null];
    } catch (error) {
      if (mine === round) [answer, wrong] = [null, error];
    }
    page.draw();
  }

  const typed = (name) => (event) => {
    asked[name] = event.target.value;
    clearTimeout(timer);
    timer = setTimeout(() => page.signal.aborted || ask(), TYPING_MS);
  };

  function take(text) {
    asked.schedule = text;
    document.getElementById("expression").value = text;
    ask();
  }

  ask();
  return {
    title: "Schedule",
    draw: () => [
      h("h1", {}, "Schedule"),
      h("div", { class: "columns" },
        card("Try one", { id: "try" },
          h("div", { class: "field" }, h("label", { for: "expression" }, "Schedule (one a line)"),
            h("textarea", { id: "expression", class: "code", rows: "2", spellcheck: "false", value: asked.schedule, oninput: typed("schedule") })),
          h("div", { class: "field" }, h("label", { for: "zone" }, "Time zone"),
            h("input", { id: "zone", list: "zones", value: asked.timezone, oninput: typed("timezone"), spellcheck: "false" }),
            h("datalist", { id: "zones" }, Intl.supportedValuesOf("timeZone").map((zone) => h("option", { value: zone })))),
          h("p", { class: "examples" }, EXAMPLES.map((text) => [h("button", { type: "button", class: "label", onclick: () => take(text) }, text), " "]))),
        card("What it means", { id: "means" },
          problem(wrong),
          answer && [h("p", { class: "words" }, answer.description),
            answer.notes.length > 0 && h("ul", { class: "notes" }, answer.notes.map((note) => h("li", {}, h("code", {}, note.code), " ", note.message))),
            answer.next.length ? table("Next times", [
              ["When", "narrow", ([at]) => when(at)],
              [answer.timezone, "narrow", ([, local]) => h("code", {}, local)],
              ...(answer.timezone === "UTC" ? [] : [["UTC", "wide narrow", ([at]) => h("code", {}, at)]]),
            ], answer.next.map((at, place) => [at, answer.local[place]]), ([at]) => at) : empty("No time lies ahead.")])),
    ],
  };
}

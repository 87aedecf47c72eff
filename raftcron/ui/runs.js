// All runs, newest first, by state and job; the first page is live.

import { button, count, empty, loaded, RUN_STATES } from "./parts.js";
import { choice } from "./jobs.js";
import { read } from "./node.js";
import { merged, runs as rows } from "./runtable.js";
import { h } from "./vdom.js";

const PAGE = 50;
const TYPING_MS = 300;

export function runs(page) {
  const asked = Object.fromEntries(["state", "job", "cursor"].map((name) => [name, page.query.get(name) ?? ""]));
  const before = [];
  const belongs = (run) => (!asked.state || run.state === asked.state) && (!asked.job || run.job === asked.job);
  const list = page.source((signal) => read("/v1/runs", { ...asked, limit: PAGE }, signal), {
    wants: (event) => event.kind === "run" && asked.cursor === "" && (!asked.job || event.job === asked.job), rest: 3_000,
  });
  page.onEvent((event) => {
    if (event.kind !== "run" || !list.isLoaded) return;
    const { items, next_cursor, total } = list.value;
    const place = items.findIndex((run) => run.id === event.id);
    if (place < 0 && asked.cursor !== "") return;
    const run = merged(items[place] ?? null, event);
    const rest = items.filter((_, index) => index !== place);
    const found = belongs(run) ? [run, ...rest].sort((one, other) => other.log_index - one.log_index) : rest;
    list.value = { items: found.slice(0, PAGE), next_cursor, total };
  });
  let timer;

  function ask(change) {
    if (!("cursor" in change)) before.length = 0;
    Object.assign(asked, { cursor: "" }, change);
    page.rewrite(asked);
    list.reload();
    page.draw();
  }

  function typed(event) {
    clearTimeout(timer);
    const { value } = event.target;
    timer = setTimeout(() => page.signal.aborted || ask({ job: value.trim() }), TYPING_MS);
  }

  function turn(cursor) {
    before.push(asked.cursor);
    ask({ cursor });
    window.scrollTo(0, 0);
  }

  const states = [["", "all states"], ...RUN_STATES.map((name) => [name, name.replaceAll("_", " ")])];
  return {
    title: "Runs",
    draw: () => [
      h("div", { class: "head" }, h("h1", {}, "Runs"),
        h("span", { class: "dim" }, list.value?.total !== null && list.value && count(list.value.total, "run")),
        asked.cursor !== "" && h("span", { class: "dim" }, "a page of the past; the first one is live")),
      h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
        h("div", { class: "field" }, h("label", { for: "state" }, "State"), choice("state", states, asked.state, (state) => ask({ state }))),
        h("div", { class: "field" }, h("label", { for: "job" }, "Job"),
          h("input", { id: "job", type: "search", value: asked.job, oninput: typed, placeholder: "its whole name", spellcheck: "false" }))),
      loaded(list, ({ items, next_cursor }) => [
        items.length ? rows("Runs", items) : empty(asked.state || asked.job ? "No run is like that." : "Nothing has run yet.",
          asked.job && h("p", {}, "The name has to be whole; ", h("a", { href: `#/jobs?q=${encodeURIComponent(asked.job)}` }, "search for a job"), " by a part of it.")),
        h("div", { class: "pages" },
          button("Newer", () => ask({ cursor: before.pop() ?? "" }), { disabled: asked.cursor === "" }),
          button("Older", () => turn(next_cursor), { disabled: next_cursor === null })),
      ]),
    ],
  };
}

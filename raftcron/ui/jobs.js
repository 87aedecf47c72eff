// All jobs: looked for, filtered, sorted and paged by the node, so that 100,000 are as quick as ten.

import { read, may } from "./node.js";
import { both, button, command, count, empty, jobLink, loaded, state, table, when } from "./parts.js";
import { h } from "./vdom.js";

const PAGE = 50;
const TYPING_MS = 250;
const SORTS = [["name", "name"], ["next_fire_at", "next fire"], ["updated_at", "last change, oldest first"]];
const STATES = [["", "all states"], ["active", "active"], ["paused", "paused"], ["ended", "ended"]];

export function jobs(page) {
  const asked = Object.fromEntries(["q", "label", "state", "sort", "cursor"].map((name) => [name, page.query.get(name) ?? ""]));
  const before = []; // cursors of the pages before this one
  const question = () => ({ ...asked, label: asked.label.split(/\s+/).filter(Boolean), limit: PAGE });
  const list = page.source((signal) => read("/v1/jobs", question(), signal), {
    wants: (event) => event.kind === "job" || (event.kind === "run" && shows(event.job)), rest: 2_000,
  });
  const shows = (name) => list.value?.items.some((job) => job.name === name) ?? false;
  let timer;

  function ask(change) {
    if (!("cursor" in change)) before.length = 0;
    Object.assign(asked, { cursor: "" }, change);
    page.rewrite(asked);
    list.reload();
    page.draw();
  }

  function typed(name) {
    return (event) => {
      clearTimeout(timer);
      const { value } = event.target;
      timer = setTimeout(() => page.signal.aborted || ask({ [name]: value.trim() }), TYPING_MS);
    };
  }

  function turn(cursor) {
    before.push(asked.cursor);
    ask({ cursor });
    window.scrollTo(0, 0);
  }

  const isFiltered = () => Boolean(asked.q || asked.label || asked.state);
  return {
    title: "Jobs",
    draw: () => [
      h("div", { class: "head" }, h("h1", {}, "Jobs"),
        h("span", { class: "dim", "aria-live": "polite" }, list.value?.total !== null && list.value && count(list.value.total, "job")),
        may("operate") && h("a", { class: "button primary", href: "#/new" }, "New job")),
      h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
        filter("Search", h("input", { id: "q", type: "search", value: asked.q, oninput: typed("q"), placeholder: "in names and descriptions" })),
        filter("Label", h("input", { id: "label", type: "search", value: asked.label, oninput: typed("label"), placeholder: "team=db" })),
        filter("State", choice("state", STATES, asked.state, (value) => ask({ state: value }))),
        filter("Order", choice("order", SORTS, asked.sort || "name", (value) => ask({ sort: value })))),
      loaded(list, ({ items, next_cursor }) => [
        items.length > 0 ? rows(items) : nothing(isFiltered()),
        h("div", { class: "pages" },
          button("Before", () => ask({ cursor: before.pop() ?? "" }), { disabled: asked.cursor === "" }),
          button("Next", () => turn(next_cursor), { disabled: next_cursor === null })),
      ]),
    ],
  };
}

function filter(label, input) {
  return h("div", { class: "field" }, h("label", { for: input.props.id }, label), input);
}

export function choice(id, options, chosen, onchoice) {
  return h("select", { id, onchange: (event) => onchoice(event.target.value) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

const rows = (items) => table("Jobs", [
  ["Job", "main", (job) => [jobLink(job.name), job.description && h("div", { class: "dim cut" }, job.description)]],
  ["State", "narrow", (job) => state(job.state)],
  ["Schedule", "wide", (job) => h("code", { class: "cut" }, [job.schedule].flat().join(" · "))],
  ["Last run", "narrow", (job) => last(job)],
  ["Next fire", "narrow", (job) => both(job.next_fire_at, job.timezone)],
  ["Labels", "wide", (job) => Object.entries(job.labels).map(([key, value]) => h("span", { class: "label" }, `${key}=${value}`))],
], items, (job) => job.name);

function last(job) {
  if (!job.last_run) return h("span", { class: "nothing" }, "none yet");
  const row = job.stats.consecutive_failures;
  return [h("a", { href: `#/runs/${encodeURIComponent(job.last_run.id)}` }, state(job.last_run.state, row > 1 ? `${row} in a row` : null)), " ",
    h("span", { class: "dim" }, when(job.last_run.finished_at ?? job.last_run.scheduled_time))];
}

function nothing(isFiltered) {
  if (isFiltered) return empty("No job is like that.", h("p", {}, "The search looks at names and descriptions; every label has to match, as key=value."));
  return empty("There is no job yet.", h("p", {}, h("a", { href: "#/new" }, "Make one"), ", or take over those of a crontab:"),
    command("raftcron import crontab FILE | raftcron job apply -f -"));
}

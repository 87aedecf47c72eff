// Write a job as JSON: a dry run first, which says what changes and every fault by its pointer; then the write itself.

import { path, write, newKey } from "./api.js";
import { notify } from "./dialog.js";
import { definitionOf, exact, pretty } from "./definition.js";
import { hasLeader, node } from "./node.js";
import { button, card, count, facts, jobLink, problem, when } from "./parts.js";
import { h } from "./vdom.js";
import { send } from "./api.js";

const FIRST = {
  name: "hello",
  schedule: "*/5 * * * *",
  timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
  executor: { type: "http", method: "POST", url: "http://127.0.0.1:9000/hook" },
  labels: {},
  description: "",
};

export function edit(page) {
  const name = page.parts[0] === "new" ? null : page.parts[1];
  const job = { text: name === null ? pretty(FIRST) : null, etag: null };
  let seen = null; // the dry run, and of which text
  let wrong = null;
  let isBusy = false;
  let key = newKey();

  async function load() {
    try {
      const response = await send("GET", path("jobs", name), { query: hasLeader() || node.cluster === null ? {} : { consistency: "stale" }, signal: page.signal });
      job.etag = response.headers.get("ETag");
      job.text = pretty(definitionOf(exact(await response.text())));
      seen = wrong = null;
      const field = document.getElementById("definition-text");
      if (field) field.value = job.text;
    } catch (error) {
      if (error.name === "AbortError") return;
      wrong = error;
    }
    page.draw();
  }

  // Where to, and what; a name that a new job lacks, or another one than the address says, is said at once.
  function target() {
    let body;
    try {
      body = JSON.parse(job.text);
    } catch (error) {
      throw Object.assign(new Error(), { title: "This is no JSON", detail: error.message });
    }
    const called = name ?? body?.name;
    if (typeof called !== "string" || called === "") {
      throw Object.assign(new Error(), { title: "The job has no name", detail: 'Write "name": "..." into it.' });
    }
    return called;
  }

  async function ask(isDry) {
    if (isBusy) return;
    isBusy = true;
    page.draw();
    try {
      const called = target();
      const conditions = name === null ? { ifNoneMatch: "*" } : { ifMatch: job.etag };
      const found = await write("PUT", path("jobs", called), { text: job.text, query: isDry ? { dry_run: "1" } : {}, key: isDry ? newKey() : key, ...conditions });
      wrong = null;
      if (isDry) seen = { found, text: job.text };
      else {
        notify(jobLink(called), name === null ? " was made." : " was written.");
        location.hash = `#/jobs/${encodeURIComponent(called)}`;
      }
    } catch (error) {
      wrong = error;
      seen = null;
    }
    isBusy = false;
    page.draw();
  }

  function typed(event) {
    job.text = event.target.value;
    key = newKey();
    page.draw();
  }

  if (name !== null) load();
  return {
    title: name === null ? "New job" : `Edit ${name}`,
    draw: () => [
      h("div", { class: "head" }, h("h1", {}, name === null ? "New job" : ["Edit ", jobLink(name)])),
      h("div", { class: "columns" },
        card("Definition", { id: "definition", aside: h("a", { href: "/openapi.json" }, "All fields") },
          job.text === null ? h("p", { class: "loading" }, "Loading…") : [
            h("label", { for: "definition-text", class: "unseen" }, "Definition as JSON"),
            h("textarea", { id: "definition-text", class: "code tall", spellcheck: "false", value: job.text, oninput: typed }),
            h("div", { class: "buttons" },
              button(isBusy ? "Asking…" : "Preview", () => ask(true), { kind: seen?.text === job.text ? "" : "primary", disabled: isBusy }),
              button("Save", () => ask(false), { kind: seen?.text === job.text ? "primary" : "", disabled: isBusy || seen?.text !== job.text,
                title: "After a preview of what stands there now" }),
              name !== null && wrong?.status === 412 && button("Load what it is now", load))]),
        card("What it would do", { id: "preview" },
          problem(wrong),
          seen?.text === job.text ? preview(seen.found)
            : !wrong && h("p", { class: "dim" }, "Preview asks the cluster what this would change, and writes nothing."))),
    ],
  };
}

function preview(found) {
  const times = (list, title) => list.length > 0 && [title, list.slice(0, 8).map((at) => h("div", {}, when(at, { as: "full" }))), list.length > 8 && `and ${list.length - 8} more`];
  return h("div", { role: "status" },
    h("p", { class: "words" }, { created: "A new job.", replaced: "It would be changed.", unchanged: "Nothing would change." }[found.result] ?? found.result),
    found.notes?.length > 0 && h("ul", { class: "notes" }, found.notes.map((note) => h("li", {}, h("code", {}, note.code), " ", note.message))),
    found.changes?.length > 0 && h("ul", { class: "changes" }, found.changes.map((change) =>
      h("li", {}, h("code", {}, change.pointer), " ", h("del", {}, shown(change.from)), " ", h("ins", {}, shown(change.to))))),
    facts(
      times(found.next, "Next fires"),
      times(found.gained, `Gains ${count(found.gained.length, "fire")}`),
      times(found.lost, `Loses ${count(found.lost.length, "fire")}`),
      found.moved.length > 0 && ["Moves", found.moved.slice(0, 8).map((one) => h("div", {}, when(one.from, { as: "full" }), " → ", when(one.to, { as: "full" })))],
    ));
}

const shown = (value) => (value === undefined || value === null ? "nothing" : JSON.stringify(value));

// What the log changes, as it comes: the stream of events, newest first.

import { stream } from "./events.js";
import { button, empty, jobLink, runLink, state, table, when } from "./parts.js";
import { choice } from "./jobs.js";
import { h } from "./vdom.js";

const KEPT = 500;
const KINDS = [["", "all kinds"], ["run", "runs"], ["job", "jobs"], ["leader", "leaders"], ["node", "nodes"], ["calendar", "calendars"]];

let seen = []; // newest first; of all views, so that one may come back

export function log(page) {
  let kind = page.query.get("kind") ?? "";
  let held = null; // what is shown while it stands still
  page.onEvent((event) => {
    seen = [event, ...seen].slice(0, KEPT);
  });
  return {
    title: "Events",
    draw() {
      const shown = (held ?? seen).filter((event) => !kind || event.kind === kind);
      return [
        h("div", { class: "head" }, h("h1", {}, "Events"),
          h("span", { class: "dim" }, stream.isLive ? "as they come, since this view was opened" : "no stream at the moment"),
          button(held ? "Go on" : "Hold still", () => {
            held = held ? null : seen;
            page.draw();
          })),
        h("form", { class: "filters" }, h("div", { class: "field" }, h("label", { for: "kind" }, "Kind"),
          choice("kind", KINDS, kind, (value) => {
            kind = value;
            page.rewrite({ kind });
            page.draw();
          }))),
        shown.length ? table("Events", [
          ["When", "narrow", (event) => when(event.at, { as: "brief" })],
          ["Kind", "narrow", (event) => event.kind],
          ["What", "rest", what],
          ["Id", "wide narrow number", (event) => event.place],
        ], shown, (event) => event.place) : empty("Nothing has changed yet.", h("p", {}, "Runs, jobs, leaders, nodes and calendars are told here the moment they are committed.")),
      ];
    },
  };
}

function what(event) {
  if (event.kind === "run") return [jobLink(event.job), " ", runLink(event.id, "run"), " ", state(event.state, event.reason), event.node && ` on ${event.node}`, event.error && h("span", { class: "error" }, ` ${event.error}`)];
  if (event.kind === "job") return [jobLink(event.name), ` ${event.change}`, event.paused && ", paused"];
  if (event.kind === "leader") return [h("strong", {}, event.node), ` leads, epoch ${event.epoch}`];
  if (event.kind === "node") return [h("strong", {}, event.name), ` began life ${event.incarnation}`];
  return [event.name, ` ${event.change}`];
}

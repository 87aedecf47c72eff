// Pieces that several views are made of: states, instants, problems, tables, what stands where nothing is.

import { brief, here, local, now, relative, utc } from "./clock.js";
import { h } from "./vdom.js";

// What each state of a run looks like: never by colour alone.
const STATES = {
  queued: ["…", "waits"],
  assigned: ["→", "waits"],
  running: ["●", "works"],
  cancelling: ["◍", "works"],
  waiting_retry: ["↻", "waits"],
  succeeded: ["✓", "well"],
  failed: ["✕", "bad"],
  timed_out: ["!", "bad"],
  lost: ["?", "bad"],
  cancelled: ["⊘", "quiet"],
  skipped: ["⇥", "quiet"],
  active: ["●", "well"],
  paused: ["‖", "warn"],
  ended: ["■", "quiet"],
};

export const RUN_STATES = Object.keys(STATES).slice(0, 11);
export const ACTIVE_STATES = ["running", "cancelling", "assigned", "waiting_retry", "queued"];
export const BAD_STATES = ["failed", "timed_out", "lost"];
export const isActive = (run) => ACTIVE_STATES.includes(run.state);

export function state(name, more = null) {
  const [glyph, mood] = STATES[name] ?? ["·", "quiet"];
  return h("span", { class: `state ${mood}` }, h("span", { class: "glyph", "aria-hidden": "true" }, glyph),
    (name ?? "–").replaceAll("_", " "), more && h("span", { class: "reason" }, `: ${more}`));
}

// An instant of the API: relative or absolute, with the other, UTC and the zone on hover.  What `isAhead` is due is "now"
// until it is decided.
export function when(iso, { zone = here, as = "relative", isAhead = false } = {}) {
  if (!iso) return h("span", { class: "nothing" }, "–");
  const at = Date.parse(iso);
  const title = `${relative(at)}\n${local(at, zone)} ${zone}\n${utc(at)}`;
  const text = { relative: isAhead && at < now() ? "now" : relative(at), brief: brief(at, zone), full: local(at, zone) }[as];
  return h("time", { datetime: iso, title }, text);
}

// An instant ahead: "in 5 s", and the time of day in the zone where it is meant.
export function both(iso, zone) {
  if (!iso) return h("span", { class: "nothing" }, "–");
  return h("span", { class: "both" }, when(iso, { zone, isAhead: true }), " ",
    h("span", { class: "dim" }, when(iso, { zone, as: "brief" }), zone === here ? "" : ` ${zone}`));
}

export const jobLink = (name) => h("a", { href: `#/jobs/${encodeURIComponent(name)}`, class: "name" }, name);
export const runLink = (id, text = id) => h("a", { href: `#/runs/${encodeURIComponent(id)}`, class: "name" }, text);

// What the node says is wrong, whole.
export function problem(found) {
  return found && h("div", { class: "problem", role: "alert" },
    h("strong", {}, found.title ?? "This page made a mistake"),
    h("p", {}, found.detail || found.message),
    found.faults?.length > 0 && h("ul", {}, found.faults.map((fault) =>
      h("li", {}, h("code", {}, fault.pointer || "(whole body)"), " ", fault.message))));
}

// What stands where a list is empty: why, and what to do.
export function empty(title, ...more) {
  return h("div", { class: "empty" }, h("p", { class: "title" }, title), more);
}

export function command(text) {
  return h("pre", { class: "command", tabindex: "0" }, text);
}

// A view of one source: its problem, its loading, or what `draw` makes of its value.
export function loaded(source, draw) {
  return [
    problem(source.problem),
    source.isLoaded ? draw(source.value) : source.problem === null && h("p", { class: "loading" }, "Loading…"),
  ];
}

export function card(title, { aside = null, id = null, kind = "" } = {}, ...children) {
  return h("section", { class: `card ${kind}`, "aria-labelledby": id },
    h("header", {}, h("h2", { id }, title), aside && h("div", { class: "aside" }, aside)), children);
}

// `columns` are [title, class, cell(row)]; class "wide" is left out where the window is narrow.
export function table(caption, columns, rows, keyOf) {
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
      h("tbody", {}, rows.map((row) =>
        h("tr", { key: keyOf(row) }, columns.map(([, kind, cell]) => h("td", { class: kind }, cell(row))))))));
}

// Names with what belongs to them.
export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, ...value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function button(text, onclick, { kind = "", disabled = false, title = null } = {}) {
  return h("button", { type: "button", class: kind, onclick, disabled, title }, text);
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

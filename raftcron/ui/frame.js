// What surrounds every view: where one is, how this node is, and whatever must not be overlooked about that.

import { duration, now } from "./clock.js";
import { stream } from "./events.js";
import { forgetToken, hasLeader, may, node, self, useToken, voters } from "./node.js";
import { button, problem } from "./parts.js";
import { token } from "./api.js";
import { h } from "./vdom.js";

const PLACES = [
  ["", "Overview"],
  ["jobs", "Jobs"],
  ["runs", "Runs"],
  ["schedule", "Schedule"],
  ["cluster", "Cluster"],
  ["events", "Events"],
  ["audit", "Audit"],
];

export function frame(place) {
  return [
    h("header", { class: "bar" },
      h("a", { href: "#/", class: "brand" }, "raftcron"),
      h("nav", { "aria-label": "Views" }, PLACES.map(([name, title]) =>
        (name !== "audit" || (may("admin") && !node.caller?.prefix)) &&
          h("a", { href: `#/${name}`, "aria-current": isAt(place, name) ? "page" : null }, title))),
      h("div", { class: "who" }, who())),
    h("div", { "aria-live": "assertive" }, banner()),
    node.isTokenWanted && tokenForm(),
  ];
}

const isAt = (place, name) => place === name || (place === "new" && name === "jobs");

function who() {
  if (node.name === null) return "…";
  const role = self()?.role ?? "";
  return [
    h("span", { class: `pulse ${stream.isLive ? "live" : ""}`, "aria-hidden": "true" }),
    h("span", { title: stream.isLive ? "Changes are shown as they come." : "Listed anew every 5 s." },
      h("strong", {}, node.name), ` ${role}`, h("span", { class: "unseen" }, stream.isLive ? ", live" : ", polling")),
    token.get() && button(node.caller ? `Leave ${node.caller.name}` : "Forget the token", forgetToken, { kind: "plain" }),
  ];
}

// One thing at a time: the one that explains the others.
function banner() {
  if (!node.isAnswering) {
    return warning("bad", `${node.name ?? "The node"} does not answer`,
      ` for ${duration(Math.max(1_000, now() - node.silentSince))}. What stands here is what it last said; this page goes on `
      + "by itself when it is back.", elsewhere());
  }
  if (node.cluster === null) return null;
  if (!hasLeader()) {
    const heard = voters().filter((member) => member.alive).length;
    const isCutOff = heard <= voters().length / 2;
    return warning("bad", isCutOff ? "No quorum" : "No leader",
      ` as ${node.name} sees it: ${heard} of ${voters().length} voters can be heard. Nothing is decided or written, nothing `
      + "is lost: what falls due is decided when there is a leader again. ", staleness(), elsewhere());
  }
  if (node.cluster.clock_untrusted) {
    return warning("warn", "Clocks disagree", ": no majority agrees on a time, so the leader goes by its own since. ",
      h("a", { href: "#/cluster" }, "See the clocks"));
  }
  return null;
}

function warning(kind, title, ...more) {
  return h("div", { class: `banner ${kind}` }, h("p", {}, h("strong", {}, title), more));
}

function staleness() {
  if (node.stalenessMs === null) return null;
  return `Shown is what this node has, as of ${duration(node.stalenessMs + now() - node.staleAt)} ago (stale reads). `;
}

// Links to the pages of the other nodes: this one may ask no other host.
export function elsewhere() {
  const others = (node.cluster?.members ?? []).filter((member) => member.name !== node.name && member.http);
  return others.length > 0 && h("span", { class: "elsewhere" }, " Ask another node: ",
    others.map((member) => [h("a", { href: addressOf(member) }, member.name), " "]));
}

export const addressOf = (member) => `${location.protocol}//${member.http}/${location.hash}`;

const titles = () => {
  if (node.isTokenWanted) return "token wanted";
  if (!node.isAnswering) return "no answer";
  if (node.cluster !== null && !hasLeader()) return "no quorum";
  return null;
};

export function titleOf(title) {
  const trouble = titles();
  return `${trouble ? `⚠ ${trouble} · ` : ""}${title} · ${node.name ?? "raftcron"}`;
}

function tokenForm() {
  const given = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("token").trim();
    if (text) useToken(text);
  };
  return h("form", { class: "card token", onsubmit: given },
    h("h1", {}, "This node wants a token"),
    h("p", {}, "Paste one that was made for you. It stays in this tab and is forgotten with it."),
    problem(node.tokenProblem),
    h("div", { class: "field" },
      h("label", { for: "token" }, "Token"),
      h("input", { id: "token", name: "token", type: "password", autocomplete: "off", required: true,
        mounted: (field) => field.focus() })),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Use it")),
    h("p", { class: "hint" }, "The first one is made on a node’s own machine: ",
      h("code", {}, "raftcron token create --bootstrap --data-dir DIR")));
}

// The members of the cluster as this node sees them, and whether their states agree.

import { duration } from "./clock.js";
import { addressOf } from "./frame.js";
import { button, empty, table } from "./parts.js";
import { drain, transfer } from "./actions.js";
import { may, node } from "./node.js";
import { h } from "./vdom.js";

const OFF_MS = 1_000; // an offset of a clock that is worth a look

export function members({ isBrief = false } = {}) {
  const found = node.cluster?.members;
  if (found === undefined) return h("p", { class: "loading" }, "Loading…");
  if (!found.length) return empty("This node knows of no member.");
  const columns = [
    ["Node", "main", (member) => name(member)],
    ["Role", "narrow", (member) => h("span", { class: member.role === "leader" ? "leader" : "" }, member.role,
      member.standing === "awaited" && " (awaited)")],
    ["", "narrow", (member) => life(member)],
    ["Clock", "narrow number", (member) => offset(member.clock_offset_ms)],
    ["Applied", "narrow number", (member) => member.applied_index?.toLocaleString("en") ?? "–"],
    ["State", "narrow", (member) => agreement(member)],
  ];
  if (!isBrief) {
    columns.push(["Address", "wide narrow", (member) => [member.http ?? "–", h("br", {}), h("span", { class: "dim" }, member.raft)]],
      ["Life", "wide narrow number", (member) => member.incarnation ?? "–"],
      ["Version", "wide narrow", (member) => [member.version ?? "–", h("span", { class: "dim" },
        member.tzdata && ` tz ${member.tzdata}`)]],
      ["Slots", "wide narrow number", (member) => (member.slots === null ? "–" : `${member.slots} / ${member.process_slots}`)],
      ["Tags", "wide rest", (member) => Object.entries(member.tags).map(([key, value]) => h("span", { class: "label" }, `${key}=${value}`))]);
    if (may("admin")) columns.push(["", "narrow", (member) => member.standing !== "awaited" && h("span", { class: "buttons" },
      button(member.drained ? "Undrain" : "Drain", () => drain(member), { title: `Whether ${member.name} gets new runs` }),
      member.role !== "leader" && member.standing === "voter" &&
        button("Let it lead", () => transfer(member), { title: `Hand over the lead to ${member.name}` }))]);
  }
  return table("Members", columns, found, (member) => member.name);
}

function name(member) {
  if (member.name === node.name) return h("span", {}, h("strong", {}, member.name), h("span", { class: "dim" }, " this one"));
  return member.http ? h("a", { href: addressOf(member), title: "Its own page" }, member.name) : member.name;
}

function life(member) {
  if (member.drained) return h("span", { class: "state warn" }, "drained");
  if (member.standing === "awaited") return h("span", { class: "state quiet" }, "awaited");
  return member.alive ? h("span", { class: "state well" }, h("span", { class: "glyph", "aria-hidden": "true" }, "●"), "alive")
    : h("span", { class: "state bad" }, h("span", { class: "glyph", "aria-hidden": "true" }, "✕"), "not heard");
}

function offset(ms) {
  if (ms === null || ms === undefined) return "–";
  const text = `${ms < 0 ? "−" : "+"}${duration(Math.abs(ms))}`;
  return h("span", { class: Math.abs(ms) > OFF_MS ? "state warn" : "" }, text);
}

function agreement(member) {
  if (member.name === node.name) return h("span", { class: "dim" }, "own");
  const found = node.agreement.get(member.name);
  if (found === undefined) return h("span", { class: "dim" }, "–");
  const { index, own, theirs } = found;
  if (own === theirs) return h("span", { class: "state well", title: `digest ${own} at index ${index}` }, "agrees");
  return h("span", { class: "state bad", title: `${own} here, ${theirs} there, at index ${index}` }, "DIFFERS");
}

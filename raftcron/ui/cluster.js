// The cluster: its members, clocks and agreement, and who has led since when.

import { Problem, events, send } from "./api.js";
import { elsewhere } from "./frame.js";
import { hasLeader, node, self, voters } from "./node.js";
import { card, empty, facts, loaded, table, when } from "./parts.js";
import { members } from "./memberlist.js";
import { h } from "./vdom.js";

const LEADERS_SHOWN = 50;
const QUIET_MS = 700; // after which the past has been told
const OLDEST = /oldest is (\d+\.\d+)/;

export function cluster(page) {
  const past = page.source(leaders, { wants: (event) => event.kind === "leader" || event.kind === "node", rest: 10_000 });
  return {
    title: "Cluster",
    draw: () => [
      h("h1", {}, "Cluster"),
      node.cluster && about(node.cluster),
      card("Members", { id: "members", aside: elsewhere() }, members()),
      card("Leaders and lives of nodes", { id: "leaders" }, loaded(past, (items) => (items.length ? table(
        "Leaders and lives of nodes", [
          ["When", "narrow", (event) => when(event.at)],
          ["At", "narrow", (event) => when(event.at, { as: "full" })],
          ["What", "rest", (event) => (event.kind === "leader" ? [h("strong", {}, event.node), ` leads, epoch ${event.epoch}, term ${event.term}`]
            : [h("strong", {}, event.name), ` began life ${event.incarnation}, version ${event.version}`])],
          ["Index", "wide narrow number", (event) => event.index.toLocaleString("en")],
        ], items, (event) => event.place)
        : empty("This node has no event of either kind any more.")))),
    ],
  };
}

function about(found) {
  const heard = voters().filter((member) => member.alive).length;
  const owed = found.catch_up;
  return card("As this node sees it", { id: "about" }, facts(
    ["Leader", found.leader ?? h("span", { class: "state bad" }, "none")],
    ["Quorum", hasLeader() ? `yes: ${heard} of ${voters().length} voters heard` : h("span", { class: "state bad" },
      `not in sight: ${heard} of ${voters().length} voters heard`)],
    ["Term, epoch", `${found.term}, ${found.epoch}`],
    ["Committed, applied", `${found.commit_index?.toLocaleString("en") ?? "–"}, ${self()?.applied_index?.toLocaleString("en") ?? "–"}`],
    ["Catching up", owed.owed ? `${owed.owed.toLocaleString("en")} runs owed, ${owed.started.toLocaleString("en")} started` : "nothing owed"],
    ["Trusted time", found.time === null ? "none yet" : when(found.time, { as: "full" }),
      found.clock_untrusted && h("span", { class: "state warn" }, " clocks disagree")],
    ["Cluster id", h("code", {}, String(found.cluster_id))],
    ["Digest here", h("code", {}, self()?.digest ?? "–")],
  ));
}

// What this node still holds of leaders and lives, newest first: the stream from its beginning, until it pauses.
async function leaders(signal) {
  let response;
  try {
    response = await past("0.0", signal);
  } catch (error) {
    const oldest = error instanceof Problem && error.status === 410 ? OLDEST.exec(error.detail) : null;
    if (oldest === null) throw error;
    response = await past(oldest[1], signal);
  }
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), 3 * QUIET_MS);
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), QUIET_MS);
  };
  const found = [];
  for await (const event of events(response, AbortSignal.any([stop.signal, signal]), heard)) found.push(event);
  clearTimeout(timer);
  return found.reverse().slice(0, LEADERS_SHOWN);
}

const past = (after, signal) => send("GET", "/v1/events", {
  query: { kind: ["leader", "node"], last_event_id: after }, signal, isStream: true,
});

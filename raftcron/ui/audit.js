// Who wrote what: the audit trail, newest first.

import { read } from "./node.js";
import { button, empty, loaded, table, when } from "./parts.js";
import { h } from "./vdom.js";

const PAGE = 50;

export function audit(page) {
  let cursor = page.query.get("cursor") ?? "";
  const before = [];
  const list = page.source((signal) => read("/v1/audit", { limit: PAGE, cursor }, signal), { wants: (event) => cursor === "" && event.kind === "job", rest: 3_000 });
  const go = (to) => {
    cursor = to;
    page.rewrite({ cursor });
    list.reload();
  };
  return {
    title: "Audit",
    draw: () => [
      h("div", { class: "head" }, h("h1", {}, "Audit"), h("span", { class: "dim" }, "every write that took effect; ", h("code", {}, "raftcron audit verify"), " checks the chain")),
      loaded(list, ({ items, next_cursor }) => [
        items.length ? table("Audit", [
          ["When", "narrow", (item) => when(item.at, { as: "full" })],
          ["Who", "narrow", (item) => item.principal],
          ["From", "wide narrow", (item) => item.remote ?? "–"],
          ["On", "wide narrow", (item) => item.node],
          ["What", "main", (item) => [h("code", {}, `${item.method} ${item.path}`), h("div", { class: "dim" }, item.summary)]],
          ["Index", "wide narrow number", (item) => item.index.toLocaleString("en")],
        ], items, (item) => item.index) : empty("Nothing was written yet."),
        h("div", { class: "pages" },
          button("Newer", () => go(before.pop() ?? ""), { disabled: cursor === "" }),
          button("Older", () => {
            before.push(cursor);
            go(next_cursor);
          }, { disabled: next_cursor === null })),
      ]),
    ],
  };
}

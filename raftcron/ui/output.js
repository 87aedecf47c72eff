// What a run writes: followed while it runs, read once when it has ended; the newest part of it, bounded.

import { path, pieces, send } from "./api.js";
import { button, empty, isActive, problem } from "./parts.js";
import { h } from "./vdom.js";

const SHOWN = 200_000; // characters; the whole of it is a click away
const AGAIN_MS = 2_000;

export function output(page, id) {
  let text = "";
  let isCut = false;
  let isOpen = false;
  let isWhole = false;
  let wrong = null;
  let stuck = true; // to the end

  async function follow() {
    isOpen = true;
    wrong = null;
    let read = "";
    try {
      const response = await send("GET", path("runs", id, "output"), { query: { follow: "1", consistency: "stale" }, signal: page.signal, isStream: true });
      for await (const piece of pieces(response, page.signal)) {
        read += piece;
        isCut = read.length > SHOWN;
        text = read = read.slice(-SHOWN);
        page.draw();
      }
      text = read;
      isWhole = true;
    } catch (error) {
      if (page.signal.aborted) return;
      wrong = error;
      if (error.outputTail) text = error.outputTail;
      if (error.status === undefined || error.status === 0 || error.status >= 500) setTimeout(() => (isOpen = false), AGAIN_MS);
    }
    page.draw();
  }

  // What is not read any more does not jump.
  const scrolled = (event) => {
    const box = event.target;
    stuck = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  };

  async function save() {
    const response = await send("GET", path("runs", id, "output"), { query: { consistency: "stale" } });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `${id}.txt`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  return {
    aside: (run) => [isActive(run) && !isWhole && isOpen && wrong === null && h("span", { class: "dim" }, "live "), text && button("Save", save, { kind: "plain" })],
    draw(run) {
      if (!isOpen && !isWhole && (run.attempts.length > 0 || isActive(run))) follow();
      const shown = text || (run.output_tail ?? "");
      queueMicrotask(() => {
        const box = document.getElementById("written");
        if (box && stuck) box.scrollTop = box.scrollHeight;
      });
      return [
        problem(wrong),
        isCut && h("p", { class: "hint" }, `The last ${SHOWN.toLocaleString("en")} characters; Save gives all of it.`),
        shown ? h("pre", { id: "written", class: "output", tabindex: "0", onscroll: scrolled, "aria-label": "Output" }, shown)
          : wrong === null && empty(isActive(run) ? "Nothing written yet." : run.attempts.length ? "It wrote nothing." : "It never started."),
      ];
    },
  };
}

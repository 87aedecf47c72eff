// The beginning of the page: addresses behind "#/" become views, and the frame says how the node is.

import { audit } from "./audit.js";
import { cluster } from "./cluster.js";
import { edit } from "./edit.js";
import { follow } from "./events.js";
import { frame, titleOf } from "./frame.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { log } from "./log.js";
import { node, onNode, watch } from "./node.js";
import { overview } from "./overview.js";
import { Page } from "./page.js";
import { empty } from "./parts.js";
import { run } from "./run.js";
import { runs } from "./runs.js";
import { schedule } from "./schedule.js";
import { h, render } from "./vdom.js";

const BEAT_MS = 1_000; // relative times go on without a request

const VIEWS = { "": overview, jobs, job, edit, runs, run, schedule, cluster, events: log, audit };

let page = null;
let view = null;
let isDue = false;
let wasTokenWanted = false;

// The view that an address means, with what it names.
function meant(parts) {
  const [first = "", second, third] = parts;
  if (first === "jobs" && third === "edit") return "edit";
  if (first === "jobs" && second !== undefined) return "job";
  if (first === "runs" && second !== undefined) return "run";
  return first === "new" ? "edit" : first;
}

function show() {
  const [address, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  let parts;
  try {
    parts = address.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    parts = [address];
  }
  page?.leave();
  page = new Page(parts, new URLSearchParams(query), draw);
  const make = Object.hasOwn(VIEWS, meant(parts)) ? VIEWS[meant(parts)] : nowhere;
  view = make(page);
  const main = document.getElementById("main");
  render(main, null);
  drawNow();
  window.scrollTo(0, 0);
  if (document.activeElement !== document.body) main.focus({ preventScroll: true });
}

const nowhere = () => ({
  title: "Nothing here",
  draw: () => empty("This page has nothing at that address.", h("a", { href: "#/" }, "Go to the overview")),
});

// Soon, once for all that has changed by then.
function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(drawNow);
}

function drawNow() {
  isDue = false;
  render(document.getElementById("frame"), frame(page.parts[0] ?? ""));
  const main = document.getElementById("main");
  if (node.isTokenWanted) render(main, null); // what was shown may not be seen by whoever comes now
  else render(main, h("div", { key: location.hash.split("?")[0] }, view.draw()));
  document.title = titleOf(view.title);
}

window.addEventListener("hashchange", show);
onNode(() => {
  if (wasTokenWanted && !node.isTokenWanted) show();
  wasTokenWanted = node.isTokenWanted;
  draw();
});
setInterval(() => document.hidden || draw(), BEAT_MS);
document.addEventListener("visibilitychange", draw);
show();
watch();
follow();

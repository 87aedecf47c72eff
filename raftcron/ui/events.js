// The stream of events of this node, resumed where it broke; while there is none, a beat at which to list again.

import { Problem, events, send } from "./api.js";
import { node } from "./node.js";

const SILENT_MS = 40_000; // the node gives a sign of life every 15 s
const RELIST_MS = 5_000; // while nothing is streamed
const WAIT_MS = [500, 1_000, 2_000, 5_000, 10_000]; // before the next attempt

export const stream = { isLive: false };

const listeners = new Set(); // {event(event), relist()}
let last = null; // id of the last event seen

// Until the returned function is called.
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function relist() {
  for (const listener of listeners) listener.relist();
}

// Follows the stream until the page is closed; a page that is hidden lets go of its connection.
export async function follow() {
  setInterval(() => {
    if (!stream.isLive && !document.hidden && !node.isTokenWanted) relist();
  }, RELIST_MS);
  for (let failures = 0; ; ) {
    await untilShown();
    if (!node.isTokenWanted) {
      try {
        await once();
        failures = 0;
      } catch (problem) {
        if (problem instanceof Problem && problem.status === 410) {
          last = null;
          continue;
        }
        failures++;
      }
    }
    stream.isLive = false;
    await pause(WAIT_MS[Math.min(failures, WAIT_MS.length) - 1] ?? WAIT_MS[0]);
  }
}

// One connection, from its beginning to its end.
async function once() {
  const stop = new AbortController();
  const hide = () => document.hidden && stop.abort();
  document.addEventListener("visibilitychange", hide);
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), SILENT_MS);
  };
  try {
    alive();
    const headers = last === null ? {} : { "Last-Event-ID": last };
    const response = await send("GET", "/v1/events", { headers, signal: stop.signal, isStream: true });
    stream.isLive = true;
    if (last === null) relist(); // what came between the lists and the stream
    for await (const event of events(response, stop.signal, alive)) {
      last = event.place ?? last;
      for (const listener of listeners) listener.event(event);
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    clearTimeout(timer);
    stream.isLive = false;
    document.removeEventListener("visibilitychange", hide);
  }
}

function untilShown() {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

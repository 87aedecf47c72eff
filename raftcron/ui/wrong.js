// What went wrong in the last 24 hours, as far as it can be told: the runs that are still kept, by when they ended.

import { now } from "./clock.js";
import { read } from "./node.js";
import { BAD_STATES } from "./parts.js";

const DAY_MS = 86_400_000;
const PAGE = 100; // runs of one state that are asked for at a time
const PAGES_MAX = 10;

const isRecent = (iso) => Date.parse(iso) >= now() - DAY_MS;

export async function load(signal) {
  const lists = await Promise.all(BAD_STATES.map((state) => newest(state, signal)));
  return { items: lists.flatMap((list) => list.items), isCut: lists.some((list) => list.isCut) };
}

// A list goes by when runs were decided, and `since` by what they were scheduled for; so pages are read until one ends
// with a run that is over for longer.
async function newest(state, signal) {
  const items = [];
  let cursor = "";
  for (let pages = 0; pages < PAGES_MAX; pages++) {
    const list = await read("/v1/runs", { state, limit: PAGE, cursor }, signal);
    items.push(...list.items);
    cursor = list.next_cursor;
    if (cursor === null || !isRecent(items.at(-1).finished_at)) return { items, isCut: false };
  }
  return { items, isCut: true };
}

// What of it counts at this moment, the last to end first; `isMore`: it is not all.
export function told({ items, isCut }) {
  const found = items.filter((run) => isRecent(run.finished_at));
  found.sort((one, other) => Date.parse(other.finished_at) - Date.parse(one.finished_at));
  return { runs: found, count: found.length, isMore: isCut };
}

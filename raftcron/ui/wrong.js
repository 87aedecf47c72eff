// What went wrong in the last 24 hours, as far as it can be told: the runs that are still kept, by when they ended, and
// the jobs whose last failure none of these shows.

import { now } from "./clock.js";
import { read } from "./node.js";
import { BAD_STATES } from "./parts.js";
import { wholeOf } from "./runtable.js";

const DAY_MS = 86_400_000;
const PAGE = 100; // runs of one state that are asked for at a time
const PAGES_MAX = 10;
const JOBS_MAX = 1_000; // whose figures are looked at

const isRecent = (iso) => Date.parse(iso) >= now() - DAY_MS;

export async function load(signal) {
  const jobs = await read("/v1/jobs", { limit: JOBS_MAX }, signal); // first: what fails after it is among the runs
  const lists = await Promise.all(BAD_STATES.map((state) => newest(state, signal)));
  return {
    items: lists.flatMap((list) => list.items),
    isCut: lists.some((list) => list.isCut),
    jobs: jobs.items.filter((job) => isRecent(job.stats.last_failure_at)),
    areAllJobs: jobs.next_cursor === null,
  };
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

// What of it counts at this moment: runs, the last to end first, and jobs that failed later than any of them shows.
// `isMore`: there were more than `count`.
export function told({ items, isCut, jobs, areAllJobs }) {
  const runs = once(items.filter((run) => isRecent(run.finished_at)));
  runs.sort((one, other) => Date.parse(other.finished_at) - Date.parse(one.finished_at));
  const lastShown = new Map(runs.toReversed().map((run) => [run.job, Date.parse(run.finished_at)]));
  const unshown = jobs.filter(({ name, stats }) =>
    isRecent(stats.last_failure_at) && !(lastShown.get(name) >= Date.parse(stats.last_failure_at)));
  return { runs, unshown, areAllJobs, count: runs.length + unshown.length, isMore: isCut || unshown.length > 0 };
}

// A divided run counts once: as itself, and as one of its parts until it has ended too.
function once(runs) {
  const found = new Map();
  for (const run of runs) if (!found.has(wholeOf(run.id)) || run.id === wholeOf(run.id)) found.set(wholeOf(run.id), run);
  return [...found.values()];
}

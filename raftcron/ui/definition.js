// What a client writes of a job, apart from what the server adds; as text that loses no digit.

const ADDED = new Set(["uid", "owner", "revision", "created_at", "updated_at", "next_fire_at", "last_run", "stats",
  "pause_note", "pause_until", "state", "skips", "secrets", "joined"]);

export const definitionOf = (job) => Object.fromEntries(Object.entries(job).filter(([name]) => !ADDED.has(name)));

export const pretty = (value) => JSON.stringify(value, null, 2);

// JSON whose whole numbers beyond 2^53 stay as they were written, where the browser can do that.
export function exact(text) {
  return JSON.parse(text, (_, value, context) =>
    (typeof value === "number" && context?.source && JSON.rawJSON && !Number.isSafeInteger(value) ? JSON.rawJSON(context.source) : value));
}

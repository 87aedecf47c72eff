// What time it is by the cluster, and times as people read them.  Not here: schedules.

let skew = 0; // ms that the cluster's trusted time is ahead of this machine's

// `iso` is the node's trusted time at the middle of the request that told it; half a second is noise.
export function heard(iso, sentAt, gotAt) {
  const found = Date.parse(iso) - (sentAt + gotAt) / 2;
  skew = Math.abs(found) < 500 ? 0 : found;
}

export const now = () => Date.now() + skew;

export const here = Intl.DateTimeFormat().resolvedOptions().timeZone;

const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1_000],
];

// A length of time in its two largest units: "340 ms", "12 s", "3 min 20 s", "2 d 4 h".
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1).replace(/\.0$/, "")} s`;
  return largest(ms, 2);
}

function largest(ms, count) {
  const first = UNITS.findIndex(([, size]) => ms >= size);
  const parts = [];
  let rest = ms;
  for (const [name, size] of UNITS.slice(first, first + count)) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0) parts.push(`${amount} ${name}`);
  }
  return parts.join(" ");
}

// "in 5 s", "3 min ago"; one unit, two beyond a day.
export function relative(at) {
  const ahead = at - now();
  const away = Math.abs(ahead);
  if (away < 1_000) return "now";
  const text = largest(away, away >= 86_400_000 ? 2 : 1);
  return ahead > 0 ? `in ${text}` : `${text} ago`;
}

const formats = new Map();

function format(zone) {
  if (!formats.has(zone)) {
    const options = { timeZone: zone, hourCycle: "h23", year: "numeric" };
    for (const part of ["month", "day", "hour", "minute", "second"]) options[part] = "2-digit";
    try {
      formats.set(zone, new Intl.DateTimeFormat("en-CA", options));
    } catch {
      formats.set(zone, format("UTC")); // a zone that this browser does not know
    }
  }
  return formats.get(zone);
}

// "2026-03-29 02:30:00", in this machine's zone or another one.
export function local(at, zone = here) {
  const parts = Object.fromEntries(format(zone).formatToParts(at).map((part) => [part.type, part.value]));
  return `${parts.year}-${parts.month}-${parts.day} ${parts.hour}:${parts.minute}:${parts.second}`;
}

// "02:30:00" today, "Mon 30 Nov 02:30:00" on other days, with the year in other years.
export function brief(at, zone = here) {
  const text = local(at, zone);
  const today = local(now(), zone);
  if (text.slice(0, 10) === today.slice(0, 10)) return text.slice(11);
  const day = days.format(Date.parse(`${text.slice(0, 10)}T12:00:00Z`)).replace(",", "");
  return `${day}${text.slice(0, 4) === today.slice(0, 4) ? "" : ` ${text.slice(0, 4)}`} ${text.slice(11)}`;
}

const days = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });

export const utc = (at) => new Date(at).toISOString().replace(".000Z", "Z");

// What a datetime-local field holds, as an instant of the API; "" stays "".
export const fromField = (text) => (text === "" ? "" : utc(new Date(text).getTime()));

export const toField = (at) => local(at).replace(" ", "T");

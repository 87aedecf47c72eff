// What may be done to jobs, runs and nodes: each asks first, sends one write, and says what came of it.

import { path, write } from "./api.js";
import { fromField, here, local, now, toField } from "./clock.js";
import { STAY, ask, field, tick } from "./dialog.js";
import { count, runLink } from "./parts.js";
import { h } from "./vdom.js";

const ofRun = (run) => h("span", {}, run.job, ": run ", runLink(run.id), ` is ${run.state.replaceAll("_", " ")}`,
  run.reason && ` (${run.reason})`, ".");

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw Object.assign(new Error(), { title: "The arguments are no JSON", detail: error.message });
  }
}

export function runNow(name) {
  ask({
    title: `Run ${name} now`,
    intro: "Beside its schedule, which goes on as it is.",
    fields: () => [
      field("Arguments (JSON, may be empty)", "args", { type: "textarea", placeholder: '{"table": "orders"}' }),
      tick("Also if a run of it is active (overlap: allow)", "allow"),
    ],
    submit: "Run now",
    async act({ args, allow }, key) {
      const body = {};
      if (args.trim()) body.args = parsed(args);
      if (allow) body.overlap = "allow";
      return ofRun((await write("POST", path("jobs", name, "runs"), { body, key })).run);
    },
  });
}

export function pause(name) {
  ask({
    title: `Pause ${name}`,
    intro: "Its schedule stops. Runs by hand stay possible; what runs goes on.",
    fields: () => [
      field("Why (others will see it)", "note", { maxlength: "500", placeholder: "maintenance of the database" }),
      field("Until (may be empty)", "until", { type: "datetime-local", step: "1", hint: `Your time, ${here}.` }),
    ],
    submit: "Pause",
    async act({ note, until }, key) {
      const body = {};
      if (note) body.note = note;
      if (until) body.until = fromField(until);
      await write("POST", path("jobs", name, "pause"), { body, key });
      return `${name} is paused.`;
    },
  });
}

export function resume(name) {
  ask({
    title: `Resume ${name}`,
    fields: () => tick("Catch up what the pause passed by", "catch_up", {
      hint: "As its misfire policy says; otherwise those times count as not owed.",
    }),
    submit: "Resume",
    async act({ catch_up }, key) {
      await write("POST", path("jobs", name, "resume"), { body: catch_up ? { catch_up: true } : {}, key });
      return `${name} goes on.`;
    },
  });
}

export function skipNext(name) {
  ask({
    title: `Skip the next times of ${name}`,
    fields: () => field("How many", "count", {
      type: "number", value: "1", min: "0", max: "100", hint: "0 takes back what was asked before.",
    }),
    submit: "Skip",
    async act({ count: wanted }, key) {
      const job = await write("POST", path("jobs", name, "skip-next"), { body: { count: Number(wanted) }, key });
      return `${name}: ${count(job?.skips.length ?? 0, "time")} will be skipped.`;
    },
  });
}

export function remove(job, done) {
  ask({
    title: `Delete ${job.name}`,
    intro: "Its definition and its schedule are gone for good; its runs stay readable for a while. Type its name to go on.",
    fields: () => [
      field("Name of the job", "name", { spellcheck: "false" }),
      tick("Cancel its runs, too", "cancel"),
    ],
    submit: "Delete the job",
    danger: true,
    ready: ({ name }) => name === job.name,
    async act({ cancel }, key) {
      const query = cancel ? { cancel_running: "1" } : {};
      await write("DELETE", path("jobs", job.name), { query, ifMatch: `"${job.revision}"`, key });
      done();
      return `${job.name} was deleted.`;
    },
  });
}

// First dry; only what was seen can then be asked for.
export function backfill(name) {
  let seen = null;
  const where = path("jobs", name, "backfill");
  const span = ({ from, to }) => ({ from: fromField(from ?? ""), to: fromField(to ?? "") });
  const isSeen = (values) => seen !== null && JSON.stringify(span(values)) === JSON.stringify(seen.span);
  const moment = (label, id, at, hint) => field(label, id, { type: "datetime-local", step: "1", value: toField(at), hint });
  const [from, to] = [now() - 86_400_000, now()];
  ask({
    title: `Backfill ${name}`,
    intro: "A run for each time of its schedule in a past span, one after the other, oldest first.",
    fields: () => [
      moment("From", "from", from, `Your time, ${here}.`),
      moment("To", "to", to, null),
      seen && h("div", { class: "preview", role: "status" }, filled(seen)),
    ],
    submit: (values) => (isSeen(values) && seen.count ? `Start ${count(seen.count, "run")}` : "Preview"),
    async act(values, key) {
      const body = span(values);
      if (isSeen(values) && seen.count) {
        const { count: started } = await write("POST", where, { body, key });
        return `${name}: ${count(started, "run")} will start, one after the other.`;
      }
      seen = { ...(await write("POST", where, { body: { ...body, dry_run: true }, key })), span: body };
      return STAY;
    },
  });
}

function filled({ count: found, runs, span }) {
  const at = (run) => local(Date.parse(run.scheduled_time));
  const inside = `between ${local(Date.parse(span.from))} and ${local(Date.parse(span.to))}`;
  if (!found) return `No time of its schedule lies ${inside}.`;
  return `${count(found, "run")} ${inside}: ${at(runs[0])}${found > 1 ? ` to ${at(runs.at(-1))}` : ""}. Nothing is written yet.`;
}

export function cancel(run) {
  ask({
    title: `Cancel this run of ${run.job}`,
    intro: "No retry follows.",
    submit: "Cancel the run",
    danger: true,
    async act(_, key) {
      return ofRun(await write("POST", path("runs", run.id, "cancel"), { key }));
    },
  });
}

export function retry(run) {
  ask({
    title: `Run this again`,
    intro: `A new run of ${run.job} with the same scheduled time and arguments.`,
    submit: "Run again",
    async act(_, key) {
      return ofRun((await write("POST", path("runs", run.id, "retry"), { body: {}, key })).run);
    },
  });
}

export function transfer(member) {
  ask({
    title: `Let ${member.name} lead`,
    intro: "The present leader hands over; runs go on, and no scheduled time is lost.",
    submit: "Hand over the lead",
    async act(_, key) {
      const { leader } = await write("POST", "/v1/cluster/transfer", { body: { to: member.name }, key });
      return `${leader} leads.`;
    },
  });
}

export function drain(member) {
  const wanted = !member.drained;
  ask({
    title: wanted ? `Drain ${member.name}` : `Give ${member.name} runs again`,
    intro: wanted ? "It gets no new runs; those it has go on." : null,
    submit: wanted ? "Drain" : "Undo the drain",
    async act(_, key) {
      await write("POST", "/v1/cluster/drain", { body: { node: member.name, drain: wanted }, key });
      return wanted ? `${member.name} gets no new runs.` : `${member.name} gets runs again.`;
    },
  });
}

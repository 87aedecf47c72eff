// What is known of the node that served this page: whether it answers, whom it follows, what it may be asked for.

import { get, onAnswer, token } from "./api.js";
import { heard, now } from "./clock.js";

const POLL_MS = 2_000;
const POLL_HIDDEN_MS = 15_000;
const POLL_TIMEOUT_MS = 5_000;
const DIGESTS_EVERY = 6; // polls: they are large

export const node = {
  name: null, // of the node
  cluster: null, // the newest GET /v1/cluster
  agreement: new Map(), // of each other member: {index, own, theirs}, the newest that could be compared
  caller: null, // {name, role, prefix}: what this page may do
  isAnswering: true,
  silentSince: null, // ms, while it does not answer
  isTokenWanted: false,
  tokenProblem: null,
  stalenessMs: null, // of the newest read, where it was a stale one
  staleAt: 0,
};

const listeners = new Set();
let wake = () => {};
let asked = () => {};
const isAsked = new Promise((resolve) => (asked = resolve)); // once for the cluster, whatever came of it

export const onNode = (listener) => listeners.add(listener);

function changed() {
  for (const listener of listeners) listener();
}

// Whether linearizable reads can be expected to work.
export const hasLeader = () => node.cluster !== null && node.cluster.leader !== null;

export const voters = () => (node.cluster?.members ?? []).filter((member) => member.standing === "voter");

export const self = () => (node.cluster?.members ?? []).find((member) => member.name === node.name);

const ROLES = ["read", "operate", "admin"];

// Whether the caller has at least this role (until that is known: yes, and the node will say).
export function may(role, job = "") {
  if (node.caller === null) return true;
  return ROLES.indexOf(node.caller.role) >= ROLES.indexOf(role) && job.startsWith(node.caller.prefix);
}

// A GET as it can be had: linearizable, and what this node has where there is no leader.
// The first one waits for word of the cluster: without a leader linearizable reads would hold all of the browser's few
// connections for seconds.
export async function read(where, query, signal) {
  await isAsked;
  if (hasLeader() || node.cluster === null) {
    try {
      const { data } = await get(where, query, signal);
      node.stalenessMs = null;
      return data;
    } catch (problem) {
      if (problem.status !== 503) throw problem;
    }
  }
  const { data, headers } = await get(where, { ...query, consistency: "stale" }, signal);
  node.stalenessMs = Number(headers.get("Raftcron-Staleness-Ms") ?? 0);
  node.staleAt = now();
  changed();
  return data;
}

onAnswer((response, problem) => {
  if (problem === null || problem.status !== 0) {
    const name = response?.headers.get("Raftcron-Node");
    if (name) node.name = name;
    if (!node.isAnswering) {
      node.isAnswering = true;
      node.silentSince = null;
      changed();
    }
  }
  if (problem?.status === 401 && !node.isTokenWanted) {
    node.isTokenWanted = true;
    node.tokenProblem = token.get() ? problem : null;
    changed();
  }
});

// Takes a token once the node has taken it; else `tokenProblem` says why not.
export async function useToken(text) {
  token.set(text);
  try {
    node.caller = (await get("/v1/whoami")).data;
    node.isTokenWanted = false;
    node.tokenProblem = null;
  } catch (problem) {
    token.drop();
    node.tokenProblem = problem;
  }
  changed();
  wake();
}

export function forgetToken() {
  token.drop();
  location.reload();
}

// Asks for the cluster until the page is closed.
export async function watch() {
  for (let round = 0; ; round++) {
    await poll(round % DIGESTS_EVERY === 0);
    asked();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
    });
  }
}

document.addEventListener("visibilitychange", () => wake());

// This node's own digest at the index that another one has applied; it keeps the last 1,024.
function compare({ members, digests }) {
  const own = new Map(digests);
  for (const { name, applied_index: index, digest: theirs } of members) {
    if (name !== node.name && theirs !== null && own.has(index)) node.agreement.set(name, { index, own: own.get(index), theirs });
  }
}

async function poll(withDigests) {
  if (node.isTokenWanted) return;
  const sentAt = Date.now();
  try {
    const { data } = await get("/v1/cluster", { digests: withDigests ? "1" : "0" }, undefined, POLL_TIMEOUT_MS);
    if (data.time !== null) heard(data.time, sentAt, Date.now());
    if (withDigests) compare(data);
    node.cluster = data;
    if (node.caller === null) node.caller = (await get("/v1/whoami", {}, undefined, POLL_TIMEOUT_MS)).data;
  } catch (problem) {
    if (problem.status === 0 && node.isAnswering) {
      node.isAnswering = false;
      node.silentSince = now();
    }
  }
  changed();
}

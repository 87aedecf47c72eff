// Requests to the node that served this page, through its public interface; and the token that they carry.

const TOKEN = "raftcron.token";
const ANSWER_MS = 15_000; // a write may take 10 s and then says 504

// An answer that is an error: what the node says of it (RFC 9457), or what can be said without one.
export class Problem extends Error {
  constructor(status, document, headers) {
    super(document.detail ?? document.title ?? `status ${status}`);
    this.status = status;
    this.title = document.title ?? `Status ${status}`;
    this.detail = document.detail ?? "";
    this.code = document.code ?? "";
    this.faults = Array.isArray(document.errors) ? document.errors : [];
    this.outputTail = document.output_tail ?? null;
    this.retryAfter = Number(headers?.get("Retry-After") ?? 0);
  }

  // Nothing came back at all.
  get isSilence() {
    return this.status === 0;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (text) => sessionStorage.setItem(TOKEN, text),
  drop: () => sessionStorage.removeItem(TOKEN),
};

const listeners = new Set(); // told of every answer and of every silence

export function onAnswer(listener) {
  listeners.add(listener);
}

function tell(response, problem) {
  for (const listener of listeners) listener(response, problem);
}

// A key that makes a repeat harmless.  (crypto.randomUUID exists only where the page came over TLS or loopback.)
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function path(...parts) {
  return `/v1/${parts.map(encodeURIComponent).join("/")}`;
}

// The response to one request that succeeded, unread.  Throws Problem; AbortError when `signal` says so, which also ends
// the reading of a stream.  `timeout` (ms) is how long the head of the answer may take.
export async function send(method, where, options = {}) {
  const { query, body, text, headers, signal, timeout = ANSWER_MS, isStream = false } = options;
  const url = new URL(where, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  const sent = new Headers(headers);
  const content = text ?? (body === undefined ? undefined : JSON.stringify(body));
  if (content !== undefined) sent.set("Content-Type", "application/json");
  if (token.get()) sent.set("Authorization", `Bearer ${token.get()}`);
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), timeout);
  const stop = () => limit.abort();
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    const response = await fetch(url, {
      method, body: content, headers: sent, signal: limit.signal, cache: "no-store", credentials: "omit",
    });
    if (!response.ok) throw new Problem(response.status, await documentOf(response), response.headers);
    tell(response, null);
    return response;
  } catch (error) {
    if (signal?.aborted) throw new DOMException("left", "AbortError");
    const problem = error instanceof Problem ? error : silence(error, limit.signal.aborted, method);
    tell(null, problem);
    throw problem;
  } finally {
    clearTimeout(timer);
    if (!isStream) signal?.removeEventListener("abort", stop);
  }
}

async function documentOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText };
  }
}

function silence(error, isLate, method) {
  const unknown = method === "GET" ? "" : " Whether it was done is not known: the same button asks again, harmlessly.";
  return new Problem(0, {
    title: "The node does not answer",
    detail: (isLate ? "It took too long." : `${error.message || error}.`) + unknown,
  });
}

// The JSON of a GET, with its headers.
export async function get(where, query, signal, timeout) {
  const response = await send("GET", where, { query, signal, timeout });
  return { data: await response.json(), headers: response.headers };
}

// A write: `key` is the same for each repeat of it.  Answers JSON, or null where there is none.
export async function write(method, where, { body, text, query, ifMatch, ifNoneMatch, key = newKey() } = {}) {
  const headers = { "Idempotency-Key": key };
  if (ifMatch) headers["If-Match"] = ifMatch;
  if (ifNoneMatch) headers["If-None-Match"] = ifNoneMatch;
  const response = await send(method, where, { body, text, query, headers });
  return response.status === 204 ? null : response.json();
}

// The events of a stream, as they come, until it ends or `signal` ends it; throws when it breaks.  `heard()` is told of
// each piece, also of one that is only a sign of life.
export async function* events(response, signal, heard = () => {}) {
  let text = "";
  for await (const piece of pieces(response, signal)) {
    heard();
    const blocks = (text + piece).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event !== null) yield event;
    }
  }
}

// What a block of the stream says; null for a sign of life, and for the word that the stream ends.
function eventOf(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  if (fields.data === undefined || fields.event === "dropped") return null;
  return { ...JSON.parse(fields.data), place: fields.id, kind: fields.event };
}

// The text of a stream, piece by piece, until it ends or `signal` ends it; throws when it breaks.
export async function* pieces(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const stop = () => reader.cancel().catch(() => {});
  signal?.addEventListener("abort", stop);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
}

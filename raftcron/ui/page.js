// One view on the page while it is shown: what it loads, when it loads it again, and when it is drawn.

import { subscribe } from "./events.js";

const REST_MS = 1_000; // between two loads of the same
const REST_MS_MAX = 30_000;
const SHARE = 20; // a load that takes 100 ms rests for 2 s: no page takes more than a twentieth of a node

export class Page {
  constructor(parts, query, draw) {
    this.parts = parts; // of the address behind "#/"
    this.query = query; // URLSearchParams
    this.draw = draw;
    this.leaving = new AbortController();
    this.signal = this.leaving.signal;
    this.sources = [];
    this.eventListeners = [];
    const unsubscribe = subscribe({
      event: (event) => {
        for (const listener of this.eventListeners) listener(event);
        for (const source of this.sources) if (source.wants(event)) source.refresh();
        this.draw();
      },
      relist: () => this.refresh(),
    });
    this.signal.addEventListener("abort", unsubscribe);
  }

  // `load(signal)` now, and again after events that `wants(event)`, on each new list, and when asked to.
  source(load, { wants = () => false, rest = REST_MS } = {}) {
    const source = new Source(this, load, wants, rest);
    this.sources.push(source);
    source.refresh();
    return source;
  }

  onEvent(listener) {
    this.eventListeners.push(listener);
  }

  refresh() {
    for (const source of this.sources) source.refresh();
  }

  // The address says what is asked for now, so that it can be passed on; the view stays.
  rewrite(query) {
    this.query = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
    const text = this.query.toString();
    history.replaceState(null, "", `#/${this.parts.map(encodeURIComponent).join("/")}${text && `?${text}`}`);
  }

  leave() {
    this.leaving.abort();
  }
}

class Source {
  constructor(page, load, wants, rest) {
    this.page = page;
    this.load = load;
    this.wants = wants;
    this.rest = rest;
    this.value = null;
    this.problem = null;
    this.isLoading = false;
    this.isWanted = false;
    this.round = 0;
    this.restsUntil = 0;
    this.timer = null;
    page.signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  get isLoaded() {
    return this.value !== null;
  }

  // As soon as the last load has ended and rested.
  refresh() {
    if (this.page.signal.aborted) return;
    this.isWanted = true;
    if (this.isLoading || this.timer !== null) return;
    const wait = this.restsUntil - performance.now();
    if (wait <= 0) this.#run();
    else {
      this.timer = setTimeout(() => {
        this.timer = null;
        this.#run();
      }, wait);
    }
  }

  // At once: the question itself has changed, and what is on its way answers the former one.
  reload() {
    clearTimeout(this.timer);
    this.timer = null;
    this.#run();
  }

  async #run() {
    const round = ++this.round;
    this.isWanted = false;
    this.isLoading = true;
    const began = performance.now();
    let value = null;
    let problem = null;
    try {
      value = await this.load(this.page.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) console.error(error); // a fault of this page
      problem = error;
    }
    if (round !== this.round || this.page.signal.aborted) return;
    this.isLoading = false;
    this.problem = problem;
    if (problem === null) this.value = value;
    const ended = performance.now();
    this.restsUntil = ended + Math.max(this.rest, Math.min(SHARE * (ended - began), REST_MS_MAX));
    this.page.draw();
    if (this.isWanted) this.refresh();
  }
}

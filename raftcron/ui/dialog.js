// Questions before a write, and the short word after it.  A repeat after silence brings the same Idempotency-Key.

import { newKey } from "./api.js";
import { button, problem } from "./parts.js";
import { h, render } from "./vdom.js";

const NOTICE_MS = 8_000;
export const STAY = Symbol("the dialog has more to ask"); // what `act` may answer
const notices = [];

// Says what was done; screen readers are told.
export function notify(...content) {
  const notice = { id: newKey(), content };
  notices.push(notice);
  drawNotices();
  setTimeout(() => dismiss(notice), NOTICE_MS);
}

function dismiss(notice) {
  const place = notices.indexOf(notice);
  if (place >= 0) notices.splice(place, 1);
  drawNotices();
}

function drawNotices() {
  render(document.getElementById("notices"), notices.map((notice) =>
    h("div", { key: notice.id, class: "notice" }, h("div", {}, notice.content),
      button("Dismiss", () => dismiss(notice), { kind: "plain" }))));
}

// A dialog.  `fields()` describes what it asks, `submit(values)` names the button, `act(values, key)` does it and answers
// what to say, or STAY.  What it throws is shown; after silence the same is asked again under the same key.
export function ask({ title, intro = null, fields = () => null, submit, danger = false, ready = () => true, act }) {
  const dialog = document.createElement("dialog");
  document.body.append(dialog);
  const asked = { problem: null, isBusy: false, isTouched: true, key: null };
  const values = () => Object.fromEntries(new FormData(dialog.querySelector("form")));
  const draw = () => render(dialog, h("form", { method: "dialog", onsubmit: run, oninput: touched, novalidate: true },
    h("h2", { id: "dialog-title" }, title), intro && h("p", {}, intro), fields(),
    problem(asked.problem),
    h("div", { class: "buttons" },
      button("Cancel", () => dialog.close(), { kind: "plain" }),
      h("button", { type: "submit", class: danger ? "danger" : "primary", disabled: asked.isBusy || !isReady() },
        asked.isBusy ? "Asking the cluster…" : named()))));
  const named = () => (typeof submit === "string" ? submit : submit(dialog.querySelector("form") ? values() : {}));
  const isReady = () => dialog.querySelector("form") === null || ready(values());

  function touched() {
    asked.isTouched = true;
    draw();
  }

  async function run(event) {
    event.preventDefault();
    if (asked.isBusy || !isReady()) return;
    if (asked.isTouched) asked.key = newKey();
    Object.assign(asked, { isBusy: true, isTouched: false, problem: null });
    draw();
    try {
      const said = await act(values(), asked.key);
      asked.isTouched = true;
      if (said !== STAY) {
        dialog.close();
        notify(said);
      }
    } catch (error) {
      asked.problem = error;
      if (error.status !== 0 && error.status !== 504) asked.isTouched = true; // it was refused: another try is a new one
    }
    asked.isBusy = false;
    draw();
  }

  dialog.setAttribute("aria-labelledby", "dialog-title");
  dialog.addEventListener("close", () => dialog.remove());
  draw();
  draw(); // now that there is a form, whether it is ready is known
  dialog.showModal();
}

export function field(label, name, { type = "text", hint = null, ...props } = {}) {
  const id = `field-${name}`;
  const input = type === "textarea"
    ? h("textarea", { id, name, rows: "4", spellcheck: "false", ...props })
    : h("input", { id, name, type, autocomplete: "off", ...props });
  return h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("p", { class: "hint" }, hint));
}

export function tick(label, name, { hint = null } = {}) {
  const id = `field-${name}`;
  return h("div", { class: "field tick" },
    h("input", { id, name, type: "checkbox", value: "1" }), h("label", { for: id }, label),
    hint && h("p", { class: "hint" }, hint));
}

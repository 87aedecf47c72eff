// Makes the DOM what plain descriptions say, changing no more than differs, so that focus and selection stay.
// Text is only ever text: nothing here or elsewhere on the page parses markup.

const PROPERTIES = new Set(["value", "checked", "disabled", "open", "selected"]);
const SAFE_HREF = /^(#|\/(?!\/)|https?:\/\/)/;

const shown = new WeakMap(); // element -> descriptions of its children
const handlers = new WeakMap(); // element -> {type: handler}

// A description.  `key` tells siblings apart that come, go and move; what is falsy keeps its place and shows nothing.
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flat(children) };
}

export function render(parent, children) {
  patch(parent, flat([children]));
}

function flat(children) {
  const found = [];
  for (const child of children) {
    if (Array.isArray(child)) found.push(...flat(child));
    else if (child === null || child === undefined || child === false) found.push({ tag: "#text", text: "" });
    else if (typeof child === "object") found.push(child);
    else found.push({ tag: "#text", text: String(child) });
  }
  return found;
}

function patch(parent, after) {
  const before = shown.get(parent) ?? [];
  const keyed = new Map();
  const plain = [];
  for (const old of before) {
    if (old.key === undefined) plain.push(old);
    else keyed.set(old.key, old);
  }
  const kept = new Set();
  let place = 0;
  for (const one of after) {
    const old = one.key === undefined ? plain[place++] : keyed.get(one.key);
    if (old !== undefined && old.tag === one.tag && !kept.has(old)) {
      kept.add(old);
      one.el = old.el;
    }
  }
  for (const old of before) if (!kept.has(old)) old.el.remove();
  let cursor = parent.firstChild;
  const earlier = new Map(before.map((old) => [old.el, old]));
  for (const one of after) {
    if (one.el === undefined) create(one);
    else update(one, earlier.get(one.el));
    if (one.el === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(one.el, cursor);
  }
  shown.set(parent, after);
}

function create(one) {
  if (one.tag === "#text") {
    one.el = document.createTextNode(one.text);
    return;
  }
  one.el = document.createElement(one.tag);
  for (const [name, value] of Object.entries(one.props)) set(one.el, name, value);
  patch(one.el, one.children);
  if (one.props.mounted) queueMicrotask(() => one.props.mounted(one.el));
}

function update(one, old) {
  if (one.tag === "#text") {
    if (one.text !== old.text) one.el.data = one.text;
    return;
  }
  for (const name of Object.keys(old.props)) if (!(name in one.props)) set(one.el, name, undefined);
  for (const [name, value] of Object.entries(one.props)) if (value !== old.props[name]) set(one.el, name, value);
  patch(one.el, one.children);
}

function set(el, name, value) {
  if (name === "key" || name === "mounted") return;
  if (name.startsWith("on")) listen(el, name.slice(2), value);
  else if (PROPERTIES.has(name)) el[name] = value ?? (name === "value" ? "" : false);
  else if (value === undefined || value === null || value === false) el.removeAttribute(name);
  else if (name === "href" && !SAFE_HREF.test(value)) el.removeAttribute(name);
  else el.setAttribute(name, value === true ? "" : String(value));
}

function listen(el, type, handler) {
  let known = handlers.get(el);
  if (known === undefined) handlers.set(el, (known = {}));
  if (!(type in known)) el.addEventListener(type, (event) => known[type]?.(event));
  known[type] = handler;
}

// A payload as a tree and raw. JSON is read by its own text: parsed, large numbers and repeated names would change.

import { make, makeButton } from "./dom.js";

const SHOWN = 20000; // characters of a text
const DEEPEST = 20; // levels of a tree
const ITEMS = 200; // shown of one object or list
const WHOLE = 400; // tokens of a tree that is open at first

export function isJSON(text) {
  try {
    return typeof JSON.parse(text) === "object" && JSON.parse(text) !== null;
  } catch {
    return false;
  }
}

/** Makes the tree of a JSON text. Its branches are built when they are opened. */
export function makeTree(text) {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[^\s"{}[\]:,]+|[{}[\]:,]/g);
  const ends = endsOf(tokens);
  const tree = make("div", "tree", makeNode(tokens, ends, 0, null, 0));
  tree.tabIndex = 0;
  tree.setAttribute("role", "group");
  tree.setAttribute("aria-label", "Payload as a tree");
  return tree;
}

function endsOf(tokens) {
  const ends = new Map();
  const open = [];
  tokens.forEach((token, at) => {
    if ("{[".includes(token)) open.push(at);
    else if ("}]".includes(token)) ends.set(open.pop(), at);
  });
  return ends;
}

function makeNode(tokens, ends, at, name, depth) {
  const label = name === null ? [] : [make("span", "key", name), ": "];
  if (!ends.has(at)) return make("div", "", ...label, makeLeaf(tokens[at]));
  const end = ends.get(at);
  const [open, close] = [tokens[at], tokens[end]];
  if (end === at + 1) return make("div", "", ...label, open + close);
  if (depth >= DEEPEST) {
    const rest = tokens.slice(at, Math.min(end + 1, at + SHOWN)).join("");
    return make("div", "", ...label, rest.length > SHOWN ? `${rest.slice(0, SHOWN)}…` : rest);
  }
  const starts = itemsOf(tokens, ends, at, end);
  const isObject = open === "{";
  const details = make("details", "", make("summary", "", ...label, open, make("span", "count", ` ${starts.length} `), close));
  const build = () => {
    if (!details.open || details.children.length > 1) return;
    details.append(
      ...starts.slice(0, ITEMS).map((start, index) => (isObject ? makeNode(tokens, ends, start + 2, unquote(tokens[start]), depth + 1) : makeNode(tokens, ends, start, String(index), depth + 1))),
      ...(starts.length > ITEMS ? [make("div", "count", `and ${starts.length - ITEMS} more: see Raw`)] : []),
    );
  };
  details.ontoggle = build;
  details.open = depth < 2 || tokens.length < WHOLE;
  build();
  return details;
}

function itemsOf(tokens, ends, at, end) {
  const starts = [];
  for (let next = at + 1; next < end; next += 1) {
    starts.push(next);
    const value = tokens[at] === "{" ? next + 2 : next;
    next = (ends.get(value) ?? value) + 1;
  }
  return starts;
}

function makeLeaf(token) {
  if (token[0] !== '"') return make("span", /^[-\d]/.test(token) ? "number" : "word", token);
  return make("span", "string", token.length > SHOWN ? `${token.slice(0, SHOWN)}…` : token);
}

function unquote(token) {
  const name = JSON.parse(token);
  return /^[\w$-]+$/.test(name) ? name : token;
}

/** Makes a text that scrolls, cut to what a browser shows at once, with a button for the rest. */
export function makeText(text, label) {
  const pre = make("pre", "", text.slice(0, SHOWN));
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", label);
  if (text.length <= SHOWN) return [pre];
  const more = make("p", "hint", `The first ${SHOWN.toLocaleString("en")} of ${text.length.toLocaleString("en")} characters. `);
  more.append(
    makeButton("link", "Show all", () => {
      pre.textContent = text;
      more.remove();
    }),
  );
  return [pre, more];
}

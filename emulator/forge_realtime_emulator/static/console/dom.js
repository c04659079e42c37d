// Elements, and how values are written. All text of calls goes through `make`, and so never becomes markup.

export const $ = (id) => document.getElementById(id);

/** Makes an element. A child that is null or false is left out. */
export function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== false));
  return node;
}

export function makeButton(className, label, press) {
  const button = make("button", className, label);
  button.type = "button";
  button.onclick = press;
  return button;
}

export function makeClose(press) {
  const button = makeButton("close quiet", "", press);
  button.setAttribute("aria-label", "Close");
  return button;
}

export function makeBar(className, fraction) {
  const bar = make("span", `bar ${className}`, make("span"));
  bar.firstChild.style.transform = `scaleX(${fraction})`;
  return bar;
}

/** Text with a button that copies it. */
export function makeSnippet(text) {
  const code = make("code", "", text);
  // What scrolls is scrolled by keyboard too.
  code.tabIndex = 0;
  code.setAttribute("role", "group");
  code.setAttribute("aria-label", "Code");
  const button = makeButton("", "Copy", () => copy(text, button, code));
  return make("div", "snippet", code, button);
}

/** Copies a text and says so on the button. Where the browser forbids it, selects the text to be copied by hand. */
export async function copy(text, button, shown) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = label), 1500);
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const plural = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

const two = (part) => String(part).padStart(2, "0");

export function formatTime(seconds) {
  const at = new Date(seconds * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

export function formatDuration(seconds) {
  if (seconds < 0.00995) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function formatAhead(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60]].flatMap(([unit, length]) => {
    const whole = Math.floor(seconds / length);
    seconds -= whole * length;
    return whole ? `${whole} ${unit}` : [];
  });
  const rest = Math.round(seconds * 1000) / 1000;
  return [...parts, ...(rest || !parts.length ? [`${rest} s`] : [])].slice(0, 2).join(" ");
}

export const formatScope = (address) => (address.isGlobal ? "global" : address.scope === "overrides" ? "no overrides, []" : (address.scope ?? "").replace(/^module /, ""));

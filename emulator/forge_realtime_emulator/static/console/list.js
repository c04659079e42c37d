// The list: a tree grid of which only the rows in view are in the page.

import { $, formatDuration, formatScope, formatTime, make, makeBar, plural, setText } from "./dom.js";
import { toneOf } from "./calls.js";

const OVERSCAN = 4; // rows above and below
const TAIL = 160; // last characters of a stream's text
const CELLS = ["time", "status", "operation", "channel", "scope", "said", "delivered", "duration", "attempts"];

/**
 * @param opened called with a row to show its details
 * @param moved called with a row that the person went to
 */
export class List {
  constructor({ opened, moved }) {
    this.grid = $("calls");
    this.body = $("rows");
    this.opened = opened;
    this.moved = moved;
    this.items = []; // rows, and attempts or publishes of those that are open, newest first
    this.expanded = new Set();
    this.current = null; // key of an item
    this.pool = [];
    this.seen = 0; // top rows of the time when the list was last at its top
    this.grid.onscroll = () => this.draw();
    this.grid.onfocus = () => this.grid.matches(":focus-visible") && this.begin();
    this.grid.onkeydown = (event) => this.press(event);
    this.body.onpointerdown = (event) => (this.pressed = event.target.closest(".row")?.item ?? null);
    this.body.onclick = (event) => this.click(event);
    $("newer").onclick = () => this.toTop();
    new ResizeObserver(() => this.arrange(this.anchor())).observe(this.grid);
  }

  /** Shows these rows, newest first. What the person looks at stays where it is, unless that is the top. */
  show(rows) {
    const anchor = this.anchor();
    this.items = rows.flatMap((row) => (this.expanded.has(row.key) ? [itemOf(row), ...childrenOf(row)] : [itemOf(row)]));
    this.arrange(anchor);
  }

  /** Places the items. Rows of a narrow window are higher than others. */
  arrange(anchor) {
    this.measure();
    this.body.style.height = `${this.items.length * this.height}px`;
    this.grid.setAttribute("aria-rowcount", String(this.items.length + 1));
    if (anchor) {
      const index = this.items.findIndex((item) => item.key === anchor.key);
      if (index >= 0) this.grid.scrollTop = index * this.height - anchor.offset;
    }
    this.draw();
  }

  /** The item that stays in its place: the one that is open if it is in view, else the first one in view. */
  anchor() {
    const top = this.grid.scrollTop;
    const chosen = this.indexOf(this.current);
    const isInView = chosen >= 0 && chosen * this.height >= top - this.height && chosen * this.height < top + this.grid.clientHeight;
    if (this.holds && isInView) return { key: this.current, offset: chosen * this.height - top };
    if (top < 2) return null;
    const index = Math.floor(top / this.height);
    return index < this.items.length ? { key: this.items[index].key, offset: index * this.height - top } : null;
  }

  measure() {
    this.height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.head = this.grid.querySelector(".head").offsetHeight;
  }

  draw() {
    if (!this.height) this.measure();
    const top = this.grid.scrollTop;
    const first = Math.max(0, Math.floor(top / this.height) - OVERSCAN);
    const count = Math.ceil(this.grid.clientHeight / this.height) + 2 * OVERSCAN;
    while (this.pool.length < count) this.pool.push(makeRow(this.body, this.pool.length));
    while (this.pool.length > count) this.pool.pop().remove();
    let active = null;
    for (let slot = 0; slot < count; slot += 1) {
      // A row of the page keeps its item while the list scrolls.
      const index = first + ((((slot - first) % count) + count) % count);
      const node = this.pool[slot];
      const item = this.items[index] ?? null;
      node.hidden = item === null;
      if (item === null) {
        node.item = null;
        continue;
      }
      this.fill(node, item, index);
      if (item.key === this.current) active = node.id;
    }
    if (active) this.grid.setAttribute("aria-activedescendant", active);
    else this.grid.removeAttribute("aria-activedescendant");
    this.count(top);
  }

  /** Says how many rows have come above those in view. */
  count(top) {
    const first = this.items[0]?.row;
    if (top < this.height / 2 || !first) this.seen = this.items.length ? first.id : 0;
    let newer = 0;
    while (newer < this.items.length && this.items[newer].row.id > this.seen) newer += 1;
    $("newer").hidden = newer === 0;
    if (newer) setText($("newer"), `${newer.toLocaleString("en")} newer`);
  }

  toTop() {
    this.holds = false;
    this.grid.scrollTop = 0;
    this.draw();
    this.grid.focus({ preventScroll: true });
  }

  fill(node, item, index) {
    const { row, child } = item;
    const isNew = node.item?.key !== item.key;
    node.item = item;
    node.style.transform = `translateY(${index * this.height}px)`;
    node.setAttribute("aria-rowindex", String(index + 2));
    node.setAttribute("aria-level", child ? "2" : "1");
    node.setAttribute("aria-selected", String(item.key === this.current));
    const isOpen = this.expanded.has(row.key);
    if (child || !hasChildren(row)) node.removeAttribute("aria-expanded");
    else node.setAttribute("aria-expanded", String(isOpen));
    if (isNew) node.classList.toggle("new", Boolean(row.fresh) && !child);
    if (!child) row.fresh = false;
    if (row.kind === "call" && row.attempts.length < row.tries && !row.asked) {
      row.asked = true;
      this.lacking(row);
    }
    (child ? fillChild : fillRow)(node.cells, row, child);
    node.cells.operation.firstChild.classList.toggle("has", !child && hasChildren(row));
  }

  /* Keyboard and pointer */

  indexOf(key) {
    return key === null ? -1 : this.items.findIndex((item) => item.key === key);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / (this.height || 1)) - 2);
    const at = this.indexOf(this.current);
    const item = this.items[at];
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) this.go(at < 0 && event.key !== "End" ? 0 : at + moves[event.key]);
    else if (event.key === "ArrowRight" && item) this.expand(item, true);
    else if (event.key === "ArrowLeft" && item) this.expand(item, false);
    else if (event.key === "Enter" && item) this.opened(item);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Makes the first row in view the current one, unless there is one. */
  begin() {
    if (this.indexOf(this.current) >= 0 || !this.items.length) return;
    this.current = this.items[Math.ceil(this.grid.scrollTop / this.height)]?.key ?? null;
    this.draw();
  }

  /** Goes to an item, and brings it into view. */
  go(index) {
    if (!this.items.length) return;
    const at = Math.min(Math.max(index, 0), this.items.length - 1);
    this.current = this.items[at].key;
    const top = at * this.height;
    const view = this.grid.clientHeight - this.head;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + this.height > this.grid.scrollTop + view) this.grid.scrollTop = top + this.height - view;
    this.draw();
    this.moved(this.items[at]);
  }

  expand(item, isOpen) {
    const { row, child } = item;
    if (child) {
      if (!isOpen) this.go(this.indexOf(row.key));
      return;
    }
    if (!hasChildren(row) || this.expanded.has(row.key) === isOpen) return;
    if (isOpen) this.expanded.add(row.key);
    else this.expanded.delete(row.key);
    this.changed();
  }

  click(event) {
    // The row that was pressed: another may have moved under the pointer since.
    const item = this.pressed ?? event.target.closest(".row")?.item;
    this.pressed = null;
    if (!item) return;
    this.current = item.key;
    if (event.target.closest(".twist.has")) this.expand(item, !this.expanded.has(item.row.key));
    else this.opened(item);
    this.draw();
  }
}

const itemOf = (row) => ({ key: row.key, row, child: null });
const hasChildren = (row) => row.kind === "stream" || row.tries > 1;

function childrenOf(row) {
  const children = [...(row.children ?? row.attempts)].sort((one, other) => other.id - one.id);
  return children.map((child) => ({ key: `${row.key}/${child.id}`, row, child }));
}

function makeRow(body, slot) {
  const node = make("div", "row");
  node.id = `row-${slot}`;
  node.setAttribute("role", "row");
  node.cells = {};
  CELLS.forEach((name, index) => {
    const cell = make("span", name);
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-colindex", String(index + 1));
    node.cells[name] = cell;
    node.append(cell);
  });
  node.mark = make("span", "mark");
  node.cells.status.append(node.mark);
  node.cells.status.mark = node.mark;
  node.cells.operation.append(make("span", "twist"), make("span", ""), make("span", "tag"));
  body.append(node);
  return node;
}

function fillRow(cells, row) {
  fillCells(cells, {
    time: formatTime(row.at),
    tone: row.tone,
    status: statusOf(row),
    operation: row.operation,
    tag: row.page ? "page" : row.fault ? "fault" : "",
    channel: row.channel ?? "",
    scope: formatScope(row),
    delivered: row.delivered,
    duration: row.duration,
    attempts: row.tries ?? null,
    isMany: row.kind === "call" && row.tries > 1,
  });
  if (row.kind === "stream") fillStream(cells.said, row);
  else fillSaid(cells.said, row.why, row.payload ?? "", row.tone);
}

function fillChild(cells, row, child) {
  const isAttempt = row.kind !== "stream";
  fillCells(cells, {
    time: formatTime(isAttempt ? child.at - child.duration : child.at),
    tone: isAttempt ? toneOf(child) : child.tone,
    status: statusOf(child),
    operation: isAttempt ? `attempt ${child.attempt}` : `publish ${child.seq}`,
    tag: child.fault ? "fault" : "",
    channel: "",
    scope: "",
    delivered: child.delivered,
    duration: child.duration,
    attempts: isAttempt ? null : child.tries,
    isMany: !isAttempt && child.tries > 1,
  });
  fillSaid(cells.said, isAttempt ? [child.code, child.message].filter(Boolean).join(": ") || null : child.why, isAttempt ? (child.payload ?? "") : dataOf(child), isAttempt ? toneOf(child) : child.tone);
}

/** The data in the envelope of a publish, from its beginning. */
function dataOf({ stream, payload }) {
  return stream.text ?? payload.slice(payload.search(/"data":|$/)).replace(/^"data":\s*/, "");
}

function fillCells(cells, values) {
  setText(cells.time, values.time);
  setText(cells.status.mark, values.status);
  cells.status.mark.className = `mark ${values.tone}`;
  const [, name, tag] = cells.operation.children;
  setText(name, values.operation);
  setText(tag, values.tag);
  tag.hidden = !values.tag;
  tag.classList.toggle("warn", values.tag === "fault");
  setText(cells.channel, values.channel);
  cells.channel.title = values.channel;
  setText(cells.scope, values.scope);
  cells.scope.title = values.scope;
  setText(cells.delivered, values.delivered === null || values.delivered === undefined ? "" : values.delivered === 0 ? "nobody" : String(values.delivered));
  cells.delivered.classList.toggle("some", values.delivered > 0);
  setText(cells.duration, values.duration === undefined ? "" : formatDuration(values.duration));
  setText(cells.attempts, values.attempts ? values.attempts.toLocaleString("en") : "");
  cells.attempts.classList.toggle("many", values.isMany);
}

function fillSaid(cell, why, payload, tone) {
  cell.className = why === null || why === undefined ? "said" : `said why ${tone}`;
  setText(cell, why ?? payload);
  cell.dataset.drawn = "";
}

function fillStream(cell, row) {
  const { said } = row;
  const parts = said ? [said.progress, said.gaps.length, said.duplicates, said.updates, said.operations, said.shown] : [row.children.length];
  const drawn = JSON.stringify([row.key, parts]);
  if (cell.dataset.drawn === drawn) return;
  cell.className = "said growing";
  cell.dataset.drawn = drawn;
  cell.replaceChildren(...(said ? makeGrowth(said) : []));
}

/** What a stream has come to: progress, merge factor, gaps, and the end of its text. */
function makeGrowth(said) {
  const merged = make("span", "tag", `${mergeFactor(said)}×`);
  merged.title = `${mergeFactor(said)} updates per publish`;
  return [
    said.progress === null ? null : makeBar("", said.progress),
    merged,
    said.gaps.length > 0 && make("span", "tag bad", plural(said.gaps.length, "gap")),
    said.duplicates > 0 && make("span", "tag warn", `${plural(said.duplicates, "duplicate")}`),
    make("span", "tail", make("span", "", said.shown.slice(-TAIL).replaceAll(/\s+/g, " "))),
  ].filter(Boolean);
}

export const mergeFactor = (said) => (said.updates / Math.max(1, said.operations)).toFixed(1);

export function statusOf(row) {
  if (row.kind === "stream") return !row.said?.ended ? "open" : (row.said.error ?? "ended");
  if (row.kind === "publish") return "sent";
  if (row.kind === "invoke") return row.status === 0 ? "failed" : String(row.status);
  return row.status === 0 ? "reset" : row.status === null ? "sent" : String(row.status);
}

// The panels: Publish, Faults, Contexts, Clock and Settings. They open on demand, over the list.

import { $, formatAhead, formatScope, formatTime, make, makeBar, makeButton, makeClose, plural, setText } from "./dom.js";
import { SETTINGS } from "./settings.js";

const LISTED = 100;
const CLAIMS_SHOWN = 1000;
const NAMES = ["publish", "faults", "contexts", "clock", "settings"];

let state = null;
let opener = null;

const clip = (text) => (text.length > CLAIMS_SHOWN ? `${text.slice(0, CLAIMS_SHOWN)}…` : text);
const most = (list) => list.slice(-LISTED);

/* Opening and closing */

export const openPanel = () => NAMES.find((name) => $(name).open) ?? null;

export function togglePanel(name) {
  const wasOpen = openPanel();
  if (wasOpen) closePanel(wasOpen !== name);
  if (wasOpen === name) return;
  opener ??= document.activeElement;
  const panel = $(name);
  panel.show();
  for (const button of document.querySelectorAll("[data-panel]")) button.setAttribute("aria-expanded", String(button.dataset.panel === name));
  if (state) draw[name]?.(state);
  panel.scrollTop = 0;
}

export function closePanel(isForAnother = false) {
  const name = openPanel();
  if (!name) return;
  $(name).close();
  document.querySelector(`[data-panel=${name}]`).setAttribute("aria-expanded", "false");
  if (isForAnother) return;
  if (opener?.isConnected && opener !== document.body) opener.focus();
  else $("calls").focus();
  opener = null;
}

/* Talking to the emulator */

async function send(output, path, method, body, done) {
  const say = (className, text) => {
    output.className = className;
    output.textContent = text;
  };
  try {
    const response = await fetch(`/_emulator/${path}`, { method, headers: { "Content-Type": "application/json" }, body: typeof body === "string" ? body : body && JSON.stringify(body) });
    const said = await response.json();
    if (!response.ok) say("bad", `${said.code}: ${said.message}`);
    else say("good", done(said));
    return response.ok;
  } catch {
    say("bad", "The emulator did not respond. Is it running?");
    return false;
  }
}

function submitting(name, act) {
  const form = $(name).querySelector("form");
  form.onsubmit = (submitted) => {
    submitted.preventDefault();
    act(form, new FormData(form), form.querySelector("output"));
  };
  return form;
}

/* Drawing. A part is drawn again only when what it shows has changed. */

const drawn = {};

function fill(id, value, children) {
  const text = JSON.stringify(value);
  if (drawn[id] === text) return;
  drawn[id] = text;
  $(id).replaceChildren(...children());
}

function fillOptions(select, values, first) {
  const text = JSON.stringify(values);
  if (select.dataset.drawn === text) return;
  select.dataset.drawn = text;
  const chosen = select.value;
  select.replaceChildren(new Option(first, ""), ...values.map((value) => new Option(value, value)));
  if (values.includes(chosen)) select.value = chosen;
}

/** Takes a state of the emulator. A panel that is closed costs nothing. */
export function drawPanels(now) {
  state = now;
  fillNames(now);
  const name = openPanel();
  if (name) draw[name](now);
}

export const installationsOf = ({ contexts, rates }) => [...new Set([contexts.default.installation, ...contexts.installations, ...Object.values(contexts.invocations).map((context) => context.installation), ...Object.keys(rates)])];

function fillNames(now) {
  if (!openPanel()) return;
  const channels = [...new Set(now.channels.map((channel) => channel.channel))];
  fill("channel-names", channels, () => most(channels).map((name) => new Option(name)));
  const installations = installationsOf(now);
  fill("installation-names", installations, () => most(installations).map((name) => new Option(name)));
}

const draw = {
  publish(now) {
    const invoked = new Set(now.invoked);
    const registered = Object.keys(now.contexts.invocations).filter((id) => !invoked.has(id));
    fillOptions($("publish").querySelector("[name=invocation]"), most(registered), "the default context");
    fill("overrides", now.overrides, () => now.overrides.map(makeOverride));
  },

  faults(now) {
    fillOptions($("faults").querySelector("[name=operation]"), now.operations, "any");
    $("waiting-empty").hidden = now.faults.length > 0;
    $("drop").hidden = now.faults.length === 0;
    const output = $("faults").querySelector("output");
    if (!now.faults.length && output.className === "good") output.textContent = "";
    fill("waiting", now.faults, () => now.faults.map((fault) => make("li", "", make("div", "line", make("span", "", describeFault(fault)), fault.probability !== undefined && make("span", "tag warn", "chaos")))));
  },

  contexts(now) {
    const { channels, contexts, live, rates, settings } = now;
    $("channels-empty").hidden = channels.length > 0;
    fill("channels", [channels, live], () => {
      const shown = most(channels);
      const more = live.channels - shown.length;
      return [...shown.map(makeChannel), ...(more > 0 ? [make("li", "hint", `and ${more.toLocaleString("en")} more channels`)] : [])];
    });
    const installations = installationsOf(now);
    setText($("limit"), settings.limit === null ? "no limit" : `limit ${settings.limit}`);
    fill("rates", [installations, rates, settings.limit], () => most(installations).map((name) => makeRate(name, rates[name] ?? 0, settings.limit)));
    fill("registered", [contexts, now.invoked], () => [makeContext({ name: "default", context: contexts.default }), ...most(listContexts(contexts.invocations, new Set(now.invoked))).reverse().map(makeContext)]);
  },

  clock(now) {
    const time = $("now").querySelector("time");
    setText(time, `${new Date(now.now * 1000).toLocaleDateString(undefined, { dateStyle: "medium" })} ${formatTime(now.now).slice(0, 8)}`);
    time.dateTime = new Date(now.now * 1000).toISOString();
    setText($("now").querySelector(".hint"), now.clock ? `${formatAhead(now.clock)} ahead of the wall clock` : "with the wall clock");
  },

  settings(now) {
    fill("each", Object.keys(now.settings), () => settingsOf(now.settings).map(makeSetting));
    for (const node of $("each").children) {
      const { name, start } = node.setting;
      const value = now.settings[name];
      const input = node.querySelector("input");
      node.querySelector(".tag").hidden = value === start || start === undefined;
      if (input === document.activeElement && input.type !== "checkbox") continue;
      if (input.type === "checkbox") input.checked = value;
      else if (input.value !== String(value ?? "")) input.value = value ?? "";
    }
  },
};

/* Publish */

function makeOverride(name) {
  const box = make("input");
  box.type = "checkbox";
  box.name = "override";
  box.value = name;
  return make("label", "check", box, name);
}

const publish = submitting("publish", (form, data, output) => {
  const where = data.get("where");
  const body = { channel: data.get("channel"), payload: data.get("payload"), isGlobal: where === "global", options: {} };
  if (data.get("invocation")) body.invocation = data.get("invocation");
  if (data.get("token")) body.options.token = data.get("token").trim();
  if (where === "overrides") body.options.contextOverrides = data.getAll("override");
  send(output, "publish", "POST", body, (said) => (said.eventId === null ? "Published. Nobody was subscribed." : `Published as event ${said.eventId}.`));
});

publish.onchange = () => {
  $("overrides").hidden = publish.where.value !== "overrides";
};

publish.payload.onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) publish.requestSubmit();
};

/* Faults */

function describeFault(fault) {
  const answers = { reset: "reset connection", truncated: "truncated body", "not-json": "body that is not JSON" };
  const parts = [fault.status ? `status ${fault.status}` : (answers[fault.answer] ?? "its own response")];
  if (fault.probability !== undefined) parts.unshift(`${percent(fault.probability)} of calls`, `seed ${fault.seed ?? "random"}`);
  if (fault.retryAfter !== undefined) parts.push(`Retry-After ${fault.retryAfter}`);
  if (fault.delay) parts.push(`${fault.delay} s late`);
  if (fault.delivered) parts.push("carried out all the same");
  if (fault.times > 1) parts.push(`${fault.times} times`);
  for (const only of ["operation", "channel", "installation"]) if (fault[only] !== undefined) parts.push(`only ${only} ${fault[only]}`);
  return parts.join(", ");
}

export const percent = (fraction) => `${Number((fraction * 100).toFixed(2))} %`;

const faults = submitting("faults", (form, data, output) => {
  const kind = data.get("kind");
  const fault = {};
  if (data.get("which") === "chaos") Object.assign(fault, { probability: Number(data.get("probability")) / 100, seed: Number(data.get("seed")) });
  else fault.times = Number(data.get("times"));
  if (kind === "status") fault.status = Number(data.get("status"));
  else if (kind !== "delay") fault.answer = kind;
  if (kind === "status" && data.get("retryAfter")) fault.retryAfter = Number(data.get("retryAfter"));
  if (data.get("delay")) fault.delay = Number(data.get("delay"));
  if (kind !== "delay" && data.get("delivered")) fault.delivered = true;
  for (const only of ["operation", "channel", "installation"]) if (data.get(only)) fault[only] = data.get(only);
  send(output, "faults", "POST", fault, () => (fault.probability === undefined ? "Added. It waits for a call." : "Chaos is on until it is cleared."));
});

faults.onchange = () => {
  const { kind, status, delay, which, times, probability, seed } = faults;
  const isChaos = which.value === "chaos";
  faults.querySelector(".of-status").hidden = status.disabled = kind.value !== "status";
  faults.querySelector(".of-response").hidden = kind.value === "delay";
  faults.querySelector(".of-next").hidden = times.disabled = isChaos;
  faults.querySelector(".of-chaos").hidden = probability.disabled = seed.disabled = !isChaos;
  delay.required = kind.value === "delay";
};

$("drop").onclick = () => send(faults.querySelector("output"), "faults", "DELETE", undefined, () => "Cleared all faults.");

/* Contexts */

function makeChannel(channel) {
  return make("li", "", make("div", "line", make("span", "name", channel.channel), make("span", "", plural(channel.subscribers, "subscriber"))), makeAddress(channel));
}

function makeAddress(address) {
  return make(
    "p",
    "meta",
    make("span", "", address.isGlobal ? "global" : `scoped: ${formatScope(address)}`),
    make("span", "", `installation ${address.installation}`),
    make("span", "", address.claims === null ? "no token" : `token with claims ${clip(JSON.stringify(address.claims))}`),
  );
}

function makeRate(installation, rate, limit) {
  const item = make("li", "", make("div", "line", make("span", "name", installation), make("span", "", limit === null ? String(rate) : `${rate} of ${limit}`)));
  if (limit !== null) {
    const fraction = Math.min(1, rate / limit);
    item.append(makeBar(`wide rate${fraction >= 0.8 ? " high" : ""}`, fraction));
  }
  return item;
}

/** What is registered, newest last. The invocations that pages caused are one entry for each context. */
function listContexts(invocations, invoked) {
  const listed = new Map();
  for (const [id, context] of Object.entries(invocations)) {
    if (!invoked.has(id)) {
      listed.set(id, { name: id, context });
      continue;
    }
    const key = JSON.stringify(context);
    const count = (listed.get(key)?.count ?? 0) + 1;
    listed.delete(key);
    listed.set(key, { name: `${plural(count, "invocation")} of pages`, context, count, last: id });
  }
  return [...listed.values()];
}

function makeContext({ name, context, last }) {
  const product = Object.entries(context.context).map(([part, value]) => `${part} ${value}`);
  const parts = [...(last ? [`the last ${last}`] : []), `installation ${context.installation}`, `module ${context.module} (${context.moduleType})`, ...product, ...(context.account ? [`account ${context.account}`] : []), context.fromUi ? "from a UI" : "not from a UI"];
  return make("li", "", make("div", "name", name), make("p", "meta", ...parts.map((part) => make("span", "", part))));
}

submitting("contexts", (form, data, output) => {
  const context = { fromUi: data.get("fromUi") !== null };
  for (const name of ["installation", "module", "account"]) if (data.get(name)) context[name] = data.get(name);
  try {
    if (data.get("context").trim()) context.context = JSON.parse(data.get("context"));
  } catch {
    output.className = "bad";
    output.textContent = 'The product context is not JSON. Write it as {"issue": "DEMO-1"}.';
    return;
  }
  send(output, "contexts", "POST", { invocations: { [data.get("id")]: context } }, () => `Registered ${data.get("id")}.`);
});

/* Clock */

const clock = submitting("clock", (form, data) => advance(Number(data.get("advance"))));
$("ahead").onclick = (event) => event.target.value && advance(Number(event.target.value));

function advance(seconds) {
  send(clock.querySelector("output"), "clock", "POST", { advance: seconds }, () => `Put forward by ${formatAhead(seconds)}.`);
}

/* Settings */

/** The settings of this emulator. One that is not described here is shown by its name. */
function settingsOf(values) {
  const described = SETTINGS.filter(({ name }) => name in values);
  const others = Object.keys(values).filter((name) => !SETTINGS.some((setting) => setting.name === name));
  return [...described, ...others.map((name) => ({ name, label: name, hint: "", start: undefined }))];
}

function makeSetting(setting) {
  const { name, label, unit, hint } = setting;
  const input = make("input");
  const isSwitch = typeof state.settings[name] === "boolean";
  input.type = isSwitch ? "checkbox" : "number";
  input.id = `setting-${name}`;
  input.setAttribute("aria-describedby", `hint-${name}`);
  if (!isSwitch) {
    input.min = "0";
    input.placeholder = "none";
  }
  input.onchange = () => change(input, name);
  const title = make("label", "", label);
  title.htmlFor = input.id;
  const described = make("p", "hint", [unit && `${unit[0].toUpperCase()}${unit.slice(1)}.`.replace(/^S\.$/, "Seconds."), hint].filter(Boolean).join(" "));
  described.id = `hint-${name}`;
  const node = make("div", "setting", make("div", "line", title, make("span", "tag warn", "changed"), input), described);
  node.setting = setting;
  node.title = name;
  return node;
}

function change(input, name) {
  const output = $("settings").querySelector("form output");
  const value = input.type === "checkbox" ? input.checked : input.value === "" ? null : Number(input.value);
  send(output, "settings", "POST", { [name]: value }, () => `${name} is ${value === null ? "none" : value}.`).then((isDone) => {
    if (!isDone && input.type === "checkbox") input.checked = !input.checked;
  });
}

$("settings").querySelector("form").onsubmit = (event) => event.preventDefault();

$("import").onclick = () => $("file").click();
$("file").onchange = async () => {
  const [file] = $("file").files;
  if (!file) return;
  await send($("recording"), "recording", "POST", await file.text(), () => `Shown: ${file.name}.`);
  $("file").value = "";
};

$("reset").onclick = () => {
  const button = $("reset");
  if (button.dataset.asked) {
    send($("recording"), "reset", "POST", undefined, () => "The emulator was reset.");
    settle();
    return;
  }
  button.dataset.asked = "yes";
  button.textContent = "Really? All calls are lost";
  button.onblur = settle;
};

function settle() {
  delete $("reset").dataset.asked;
  $("reset").textContent = "Reset the emulator";
}

/* All of them */

for (const name of NAMES) $(name).prepend(makeClose(() => closePanel()));
for (const button of document.querySelectorAll("[data-panel]")) button.onclick = () => togglePanel(button.dataset.panel);
publish.onchange();
faults.onchange();

// A call, written as curl, as Python of the client, and as a pytest case.

import { SETTINGS } from "./settings.js";

const METHODS = ["publish", "publish_global", "sign_realtime_token"];
const SENT_BY_CURL = ["host", "content-length", "user-agent", "accept", "accept-encoding", "connection"];

/** The last attempt of a call, as a command of a POSIX shell. */
export function asCurl({ records, event, origin }) {
  const last = records.at(-1);
  if (last.kind === "event") return curl(origin, "POST", "/_emulator/publish", [["content-type", "application/json"]], JSON.stringify(publicationOf(event)));
  if (last.kind === "invoke") return curl(origin, "POST", "/_emulator/invoke", [["content-type", "application/json"]], JSON.stringify({ path: last.path, method: last.method }));
  const { method, path, headers, body } = last.request;
  return curl(origin, method, path, Object.entries(headers).filter(([name]) => !SENT_BY_CURL.includes(name)), body);
}

function curl(origin, method, path, headers, body) {
  const parts = [`curl -X ${/^[A-Z]+$/.test(method) ? method : quoteShell(method)} ${quoteShell(origin + path)}`, ...headers.map(([name, value]) => `-H ${quoteShell(`${name}: ${value}`)}`)];
  if (body) parts.push(`--data-raw ${quoteShell(body)}`);
  return parts.join(" \\\n  ");
}

/** A text as one word of a shell. What a terminal would take for a key, such as Ctrl-C, is escaped. */
function quoteShell(text) {
  if (!/[^\P{Cc}\n\t]/u.test(text)) return `'${text.replaceAll("'", `'\\''`)}'`;
  // Shells have this form since POSIX of 2024, and bash and zsh have always had it.
  const escaped = text.replace(/[\\']/g, "\\$&").replace(/[^\P{Cc}\n\t]/gu, (one) => [...new TextEncoder().encode(one)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join(""));
  return `$'${escaped}'`;
}

function publicationOf(event) {
  const overrides = overridesOf(event);
  return { channel: event.channel, payload: event.payload, isGlobal: event.isGlobal, options: overrides === null ? {} : { contextOverrides: overrides } };
}

/** The names of the context overrides in a scope, or null for the default scope. */
function overridesOf(event) {
  if (event.isGlobal || !/^overrides\b/.test(event.scope)) return null;
  return [...event.scope.matchAll(/(?:^overrides|,) (\w+)/g)].map(([, name]) => name);
}

/** The call as a program, or null if the client has no method for it. */
export function asPython({ records, origin }) {
  const last = records.at(-1);
  const call = callOf(last);
  if (!call) return null;
  const lines = [
    "from forge_realtime import RealtimeClient",
    "",
    `with RealtimeClient(base_url=${quote(origin)}) as realtime:`,
    `    live = ${call.live}`,
    `    print(live.${call.method}(${call.args.join(", ")}))`,
  ];
  return `${lines.join("\n")}\n`;
}

function callOf(record) {
  if (record.kind !== "request" || !METHODS.includes(record.operation) || !record.authorization) return null;
  // The client has no method for a call that the document does not allow.
  if (record.channel === null || (record.operation !== "sign_realtime_token" && typeof record.payload !== "string")) return null;
  const body = JSON.parse(record.request.body);
  const who = record.authorization;
  const acts = [...(who.as && who.as !== "app" ? [`as_=${quote(who.as)}`] : []), ...(who.accountId ? [`account_id=${quote(who.accountId)}`] : [])];
  const live = who.id === null ? `realtime.for_installation(${[quote(who.installationId), ...acts].join(", ")})` : `realtime.for_invocation({"x-forge-invocation-id": ${quote(who.id)}}${acts.map((one) => `, ${one}`).join("")})`;
  const options = body.options ?? {};
  if (record.operation === "sign_realtime_token") {
    const permissions = body.permissions ? [`permissions=${literal(body.permissions)}`] : [];
    return { live, method: record.operation, channel: body.channelName, args: [quote(body.channelName), literal(body.claims), ...permissions], options };
  }
  const args = [quote(body.name), payloadOf(body.payload)];
  const overrides = options.contextOverrides ? [`context_overrides=${literal(options.contextOverrides)}`] : [];
  const token = typeof options.token === "string" ? [`token=${quote(options.token)}`] : [];
  return { live, method: record.operation, channel: body.name, args: [...args, ...token, ...overrides], plain: [...args, ...overrides], options };
}

/** A payload as the value that the client encodes to the same text, or else as that text. */
function payloadOf(text) {
  try {
    const value = JSON.parse(text);
    // Both languages write these alike, and the order of the names stays.
    const isAlike = typeof value === "object" && value !== null && JSON.stringify(value) === text && !/\\u|\d[.eE]\d|\d{16}/.test(text);
    return isAlike ? literal(value) : quote(text);
  } catch {
    return quote(text);
  }
}

/** JSON as a Python literal. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${quote(name)}: ${literal(one)}`).join(", ")}}`;
  return String(value);
}

/** A text as a Python literal: what could change the code, or not be seen in it, is escaped. */
function quote(text) {
  const mark = text.includes('"') && !text.includes("'") ? "'" : '"';
  const escaped = text.replaceAll("\\", "\\\\").replaceAll(mark, `\\${mark}`).replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\t");
  return `${mark}${escaped.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (one) => {
    const code = one.codePointAt(0);
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  })}${mark}`;
}

/** The call as a test with the fixture `realtime_emulator`: the same context, faults, outcome and delivery. */
export function asTest({ records, event, state }) {
  const last = records.at(-1);
  const call = callOf(last);
  const failed = last.code !== null;
  const setup = [];
  const context = state.contexts.invocations[last.authorization.id];
  if (context && !state.invoked.includes(last.authorization.id)) setup.push(`realtime_emulator.register(invocations={${quote(last.authorization.id)}: ${literal(context)}})`);
  if (failed && (last.fault || last.code === "RATE_LIMIT_EXCEEDED")) setup.push(`realtime_emulator.fail_next(100, ${faultOf(last)}, optional=True)`);
  else for (const record of records) if (record.fault && record.code !== null) setup.push(`realtime_emulator.fail_next(${faultOf(record)})`);
  const claims = event?.claims ?? null;
  const args = claims === null ? call.args : [...call.plain, "token=token"];
  const sign = claims === null ? [] : [`token = live.sign_realtime_token(${quote(call.channel)}, ${literal(claims)})`];
  const called = `live.${call.method}(${args.join(", ")})`;
  const where = [quote(call.channel)];
  if (event?.isGlobal) where.push("is_global=True");
  if (context) where.push(`invocation=${quote(last.authorization.id)}`);
  if (call.options.contextOverrides && !event?.isGlobal) where.push(`context_overrides=${literal(call.options.contextOverrides)}`);
  if (claims !== null) where.push("token=token");
  const isDelivered = !failed && event?.delivered > 0;
  const body = [];
  if (failed) body.push("with pytest.raises(ForgeRealtimeError):", `    ${called}`);
  else if (isDelivered) body.push(`with realtime_emulator.subscribe(${where.join(", ")}) as page:`, `    ${called}`, `    assert page.receive(timeout=2).payload == ${quote(event.payload)}`);
  else if (event) body.push(`assert ${called}.event_id is None  # nobody is subscribed`);
  else body.push(`assert ${called}.token`);
  const changed = SETTINGS.filter(({ name, start }) => name in state.settings && state.settings[name] !== start && name !== "limit");
  const mark = changed.map(({ name }) => `${name}=${literal(state.settings[name])}`).join(", ");
  return `${[
    ...(failed || mark ? ["import pytest", ""] : []),
    `from forge_realtime import ${failed ? "ForgeRealtimeError, " : ""}RealtimeClient`,
    "",
    "",
    ...(mark ? [`@pytest.mark.realtime_emulator(${mark})`] : []),
    `def test_${last.operation}_${nameOf(call.channel)}(realtime_emulator):`,
    ...[...setup, "with RealtimeClient() as realtime:", ...[`live = ${call.live}`, ...sign, ...body].map((line) => `    ${line}`)].map((line) => `    ${line}`),
  ].join("\n")}\n`;
}

function faultOf(record) {
  const delivered = record.event ? ", delivered=True" : "";
  if (record.status === 0) return `answer="reset"${delivered}`;
  if (!record.fault) return "status=429";
  if (record.status !== 200) return `status=${record.status}${delivered}`;
  return `answer="${record.response.body.startsWith("{") ? "truncated" : "not-json"}"${delivered}`;
}

const nameOf = (channel) => channel.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "").slice(0, 40) || "channel";

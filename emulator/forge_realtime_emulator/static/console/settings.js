// The settings of the emulator: how each is called here, its unit, and its value unless the emulator was told another.

export const SETTINGS = [
  { name: "limit", label: "Limit", unit: "operations per second and installation", start: 50, hint: "Publish, subscribe and sign together. Empty: no limit." },
  { name: "limit_retry_after", label: "Retry-After over the limit", unit: "s", start: null, hint: "Empty: no such header." },
  { name: "strict", label: "Strict", start: false, hint: "Refuse invocations and installations that are not registered." },
  { name: "errors_in_200", label: "Errors in a 200", start: true, hint: "An operation that failed gets the status 200 with errors, instead of a 4xx." },
  { name: "token_lifetime", label: "Lifetime of tokens", unit: "s", start: 3600, hint: "0: every token has expired." },
  { name: "token_by_installation", label: "Tokens by installation", start: true, hint: "A token may be signed on behalf of an installation." },
  { name: "invocation_lifetime", label: "Lifetime of invocations", unit: "s", start: null, hint: "Empty: for ever." },
  { name: "replay_retention", label: "Retention for replay", unit: "s", start: 300, hint: "How long events are kept for replay." },
  { name: "keep_unheard", label: "Keep unheard events", start: false, hint: "An event that reached nobody is kept for replay, too." },
  { name: "overrides_in_order", label: "Overrides in order", start: false, hint: "The order of context overrides matters." },
  { name: "empty_overrides_are_global", label: "Empty overrides are global", start: false, hint: "The context overrides [] are the same as a global channel." },
  { name: "cold_start_after", label: "Scale to zero after", unit: "s", start: null, hint: "Without a call of the service. Empty: never." },
  { name: "cold_start_duration", label: "Cold start takes", unit: "s", start: 120, hint: "So long, calls of the service get a 503." },
];

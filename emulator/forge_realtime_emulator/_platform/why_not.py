"""Explanations of a missing event: the near misses among the published events, and the failed calls."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .channels import Address
from .errors import join_code
from .records import RecordedEvent, RecordedRequest, channel_of
from .text import printable

_SHOWN = 5
_CALLS = 20
_LENGTH = 500
"""Longest line kept with an event, in characters: names can be long."""


def why_not(
    events: Sequence[RecordedEvent],
    calls: Sequence[RecordedRequest],
    address: Address,
    *,
    since: float,
    default_scope: str,
) -> str:
    """Explain in a few lines why no event came.

    Args:
        events: The published events.
        calls: The calls of operations.
        address: Where the subscriber listens.
        since: When it subscribed, in seconds of the emulator's clock.
        default_scope: The scope of the default context.

    Returns:
        Similar events published since then, each with its differences, and the failed calls. No payload, no claim.
    """
    came_early = any(event.address == address and event.at < since for event in events)
    lines = [*_about_events(events, address, since, default_scope), *_about_calls(calls, since, came_early=came_early)]
    # One item may be several lines.
    return "\n".join(printable(line) for item in lines for line in item.split("\n"))


def about_channel(
    channel: str,
    events: Sequence[RecordedEvent],
    calls: Sequence[RecordedRequest],
    live: Mapping[Address, int],
    *,
    now: float,
    default_scope: str,
) -> str:
    """Explain in a few lines what reached whom on a channel, for somebody who knows no more than its name.

    Args:
        channel: The name of the channel.
        events: The published events.
        calls: The calls of operations.
        live: The number of subscribers by address.
        now: The time, in seconds of the emulator's clock.
        default_scope: The scope of the default context.

    Returns:
        The last events with the subscribers that did not get them, the subscribers, and failed calls. No payload, no
        claim.
    """
    lines: list[str] = []
    on_it = [event for event in events if event.channel.lower() == channel.lower()][-_SHOWN:]
    for event in on_it:
        lines.append(f"{_describe_event(event)}, {now - event.at:.0f} s ago, reached {event.delivered} subscriber(s).")
        lines += event.near_misses or near_misses(event.address, live, default_scope)
    if not on_it:
        lines.append(f"No event was published on {channel!r}. Events: {_names(event.channel for event in events)}.")
    here = sum(number for address, number in live.items() if address.channel == channel)
    lines.append(f"Now {here} subscriber(s) of {channel!r}. Subscribed: {_names(one.channel for one in live)}.")
    failed = [call for call in calls if call.code is not None and channel_of(call.body) == channel]
    if failed:
        lines += ["Failed calls on it:", *_last(_describe_call(call) for call in failed)]
    if not calls and not on_it:
        lines.append("No call came either. Does the app send to the emulator's url (FORGE_EGRESS_PROXY_URL)?")
    return "\n".join(printable(line) for line in lines)


def _names(channels: Iterable[str]) -> str:
    names = sorted({*map(repr, channels)})
    more = f" and {len(names) - _CALLS} more channels" if len(names) > _CALLS else ""
    return f"{', '.join(names[:_CALLS])}{more}" if names else "none"


def near_misses(published: Address, live: Mapping[Address, int], default_scope: str) -> tuple[str, ...]:
    """Describe the subscribers of a channel with the same name, ignoring case, that do not get an event.

    Args:
        published: Where the event was published.
        live: The number of subscribers by address, of the channels with this name.
        default_scope: The scope of the default context.

    Returns:
        One line for each of the first addresses, with its differences. No claim.
    """
    near = [address for address in live if address != published]
    lines = [
        f"{live[address]} subscriber(s) on {address.channel!r} did not get it:"
        f" {'; '.join(_differences(published, address, default_scope))}"
        for address in near[:_SHOWN]
    ]
    if len(near) > _SHOWN:
        lines.append(f"Nor did those of {len(near) - _SHOWN} more subscriptions to a channel of that name")
    return tuple(f"{printable(line)[:_LENGTH]}." for line in lines)


def _about_events(events: Sequence[RecordedEvent], address: Address, since: float, default_scope: str) -> Iterator[str]:
    after = [event for event in events if event.at >= since]
    missed = [event for event in after if event.address != address]
    near = [event for event in missed if _is_near(event.channel, address.channel)]
    if here := len(after) - len(missed):
        yield f"Since the subscription began, {here} event(s) were published to it. All that arrived were received."
    elif not after:
        yield "Since the subscription began, nothing was published."
    if not here and (early := sum(event.address == address for event in events)):
        yield (
            f"Before the subscription began, {early} event(s) were published to it. Subscribe first, or replay them:"
            " subscribe(..., replay_seconds=60). Those that reached nobody are only kept with the setting keep_unheard."
        )
    if near:
        yield "Published since the subscription began, but to other addresses:"
        yield from _last(_compare(event, address, default_scope) for event in near)
    elif missed:
        channels = sorted({repr(event.channel) for event in missed})
        more = f" and {len(channels) - _SHOWN} more" if len(channels) > _SHOWN else ""
        named = f"{', '.join(channels[:_SHOWN])}{more}"
        yield f"Since the subscription began, events were published on other channels only: {named}."


def _about_calls(calls: Sequence[RecordedRequest], since: float, *, came_early: bool) -> Iterator[str]:
    after = [call for call in calls if call.at >= since]
    failed = [call for call in after if call.code is not None]
    if failed:
        yield "Failed calls since the subscription began:"
        yield from _last(_describe_call(call) for call in failed)
    if not after and not came_early:
        yield (
            "No call came either. Does the code under test send to the emulator's url"
            " (FORGE_EGRESS_PROXY_URL, or the base_url that its client was given)?"
        )


def last_calls(calls: list[RecordedRequest]) -> str:
    """Describe the last calls, one per line, with why they were refused. No payload, no token, no id."""
    more = [f"({len(calls) - _CALLS} calls before)"] if len(calls) > _CALLS else []
    return "\n".join([*more, *(printable(_describe_call(call))[:_LENGTH] for call in calls[-_CALLS:])])


def _last(lines: Iterable[str]) -> Iterator[str]:
    """Yield the last distinct lines, each once with its count: a stream's events are all missing for one reason."""
    counted: dict[str, int] = {}
    for line in lines:
        counted[line] = counted.pop(line, 0) + 1
    for line, times in list(counted.items())[-_SHOWN:]:
        head, *rest = line.split("\n")
        yield "\n".join([f"  {head}" if times == 1 else f"  {times} times: {head}", *rest])


def _describe_call(call: RecordedRequest) -> str:
    channel = channel_of(call.body)
    on = f" on {channel!r}" if isinstance(channel, str) else ""
    why = "" if call.code is None else f": {join_code(call.code, call.message or '', call.detail)}"
    return f"{call.operation}{on}, answered {call.status or 'by a reset'}{why}"


def _is_near(published: str, subscribed: str) -> bool:
    return bool(difflib.get_close_matches(published.lower(), [subscribed.lower()], cutoff=0.8))


def _describe_event(event: RecordedEvent) -> str:
    return f"{'publish_global' if event.is_global else 'publish'} on {event.channel!r}"


def _compare(event: RecordedEvent, address: Address, default_scope: str) -> str:
    first, *others = _differences(event.address, address, default_scope)
    if not others:
        return f"{_describe_event(event)}: {first}."
    return "\n".join([f"{_describe_event(event)}:", *(f"    {difference}." for difference in (first, *others))])


def _differences(published: Address, subscribed: Address, default_scope: str) -> Iterator[str]:
    if published.channel != subscribed.channel:
        is_same = published.channel.lower() == subscribed.channel.lower()
        yield f"the subscription is on {subscribed.channel!r}{', and names are case-sensitive' if is_same else ''}"
    if published.installation != subscribed.installation:
        yield (
            f"it is in the installation {published.installation!r}, and the subscription in"
            f" {subscribed.installation!r} (subscribe with the invocation= whose installation is meant)"
        )
    if published.is_global != subscribed.is_global:
        yield (
            "the subscription is global, and gets only what publish_global sends"
            if subscribed.is_global
            else "the subscription is scoped, and gets only what publish sends"
            " (is_global=True, or listen --global, gets this)"
        )
    elif published.scope != subscribed.scope:
        yield _compare_scopes(published.scope, subscribed.scope, default_scope)
    if published.claims != subscribed.claims:
        if published.claims is not None and subscribed.claims is not None:
            yield "the claims of the two tokens differ; they have to be equal, values and all"
        else:
            having, lacking = ("the event", "the subscription")
            if published.claims is None:
                having, lacking = lacking, having
            yield f"{having} has a token and {lacking} has none; both need one with equal claims, or neither"


def _compare_scopes(published: str, subscribed: str, default: str) -> str:
    if _has_overrides(published) != _has_overrides(subscribed):
        hint = "both sides have to give the same context overrides, or none"
    elif published == default:
        hint = "the publisher is in the default context (is its invocation registered, under the id that was sent?)"
    elif subscribed == default:
        hint = "the subscription is in the default context (subscribe with the invocation= that is meant)"
    else:
        hint = "each side is in the context of its invocation"
    there, here = _describe_scope(published), _describe_scope(subscribed)
    return f"it was published in {there}, and the subscription is in {here}; {hint}"


def _has_overrides(scope: str) -> bool:
    return scope.partition(" ")[0] == "overrides"


def _describe_scope(scope: str) -> str:
    if _has_overrides(scope):
        return f"the context overrides [{scope.removeprefix('overrides').strip()}]"
    return f"the default scope [{scope}]"

"""Why a subscriber did not get an event: the near matches among what was published."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from .channels import Address
from .errors import spoken
from .records import RecordedEvent, RecordedRequest, channel_of

if TYPE_CHECKING:
    from .sidecar import Sidecar

_SHOWN = 5
_CALLS = 20
_LENGTH = 500
"""Characters of a line that is kept with an event: names can be long."""


def why_not(sidecar: Sidecar, address: Address, since: float) -> str:
    """Explains in a few lines why nothing came.

    Args:
        sidecar: What was published.
        address: Where the subscriber listens.
        since: When it subscribed, in seconds of the emulator's clock.

    Returns:
        What was published meanwhile that is like it, with what differs, and the calls that failed. No payload, no claim.
    """
    events, calls = list(sidecar.events), list(sidecar.requests)
    default_scope = sidecar.address_of_page({"channel": address.channel}, "subscribe").scope
    came_early = any(event.address == address and event.at < since for event in events)
    return "\n".join([*_of_events(events, address, since, default_scope), *_of_calls(calls, since, came_early)])


def near_misses(published: Address, live: Mapping[Address, int], default_scope: str) -> tuple[str, ...]:
    """Says who is subscribed to a channel of the same name, upper and lower case apart, and does not get an event.

    Args:
        published: Where the event went.
        live: How many subscribers there are, by address.
        default_scope: The scope of the default context.

    Returns:
        A line for each of the first addresses, with what differs. No claim.
    """
    name = published.channel.lower()
    near = [address for address in live if address.channel.lower() == name and address != published]
    lines = [
        f"{live[address]} subscriber(s) on {address.channel!r} did not get it:"
        f" {'; '.join(_differences(published, address, default_scope))}"
        for address in near[:_SHOWN]
    ]
    if len(near) > _SHOWN:
        lines.append(f"Nor did those of {len(near) - _SHOWN} more subscriptions to a channel of that name")
    return tuple(f"{line[:_LENGTH]}." for line in lines)


def _of_events(events: list[RecordedEvent], address: Address, since: float, default_scope: str) -> Iterator[str]:
    after = [event for event in events if event.at >= since]
    missed = [event for event in after if event.address != address]
    near = [event for event in missed if _is_near(event.channel, address.channel)]
    if here := len(after) - len(missed):
        yield f"Since it was subscribed, {here} event(s) were published to it, and all that have arrived were received."
    elif not after:
        yield "Since it was subscribed, nothing was published."
    if not here and (early := sum(event.address == address for event in events)):
        yield (
            f"Before it was subscribed, {early} event(s) were published to it. Subscribe first, or ask for them:"
            " subscribe(..., replay_seconds=60)."
        )
    if near:
        yield "Published since it was subscribed, but not to it:"
        yield from _last(_compared(event, address, default_scope) for event in near)
    elif missed:
        channels = sorted({repr(event.channel) for event in missed})
        more = f" and {len(channels) - _SHOWN} more" if len(channels) > _SHOWN else ""
        named = f"{', '.join(channels[:_SHOWN])}{more}"
        yield f"Since it was subscribed, events were published on {named}, which is not like its channel."


def _of_calls(calls: list[RecordedRequest], since: float, came_early: bool) -> Iterator[str]:
    after = [call for call in calls if call.at >= since]
    failed = [call for call in after if call.code is not None]
    if failed:
        yield "Calls that failed since it was subscribed:"
        yield from _last(_told(call) for call in failed)
    if not after and not came_early:
        yield (
            "No call came either. Does the code under test send to the emulator's url"
            " (FORGE_EGRESS_PROXY_URL, or the base_url that its client was given)?"
        )


def last_calls(calls: list[RecordedRequest]) -> str:
    """Tells the last calls in a line each, with why they were refused. No payload, no token, no id."""
    more = [f"({len(calls) - _CALLS} calls before)"] if len(calls) > _CALLS else []
    return "\n".join([*more, *(_told(call)[:_LENGTH] for call in calls[-_CALLS:])])


def _last(lines: Iterable[str]) -> Iterator[str]:
    """The last lines that differ, each once: a hundred events of one stream are missing for one reason."""
    counted: dict[str, int] = {}
    for line in lines:
        counted[line] = counted.pop(line, 0) + 1
    for line, times in list(counted.items())[-_SHOWN:]:
        head, *rest = line.split("\n")
        yield "\n".join([f"  {head}" if times == 1 else f"  {times} times: {head}", *rest])


def _told(call: RecordedRequest) -> str:
    channel = channel_of(call.body)
    on = f" on {channel!r}" if isinstance(channel, str) else ""
    why = "" if call.code is None else f": {spoken(call.code, call.message or '')}"
    return f"{call.operation}{on}, answered {call.status or 'by a reset'}{why}"


def _is_near(published: str, subscribed: str) -> bool:
    return bool(difflib.get_close_matches(published.lower(), [subscribed.lower()], cutoff=0.8))


def _called(event: RecordedEvent) -> str:
    return f"{'publish_global' if event.is_global else 'publish'} on {event.channel!r}"


def _compared(event: RecordedEvent, address: Address, default_scope: str) -> str:
    first, *others = _differences(event.address, address, default_scope)
    if not others:
        return f"{_called(event)}: {first}."
    return "\n".join([f"{_called(event)}:", *(f"    {difference}." for difference in (first, *others))])


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
            else "the subscription is scoped, and gets only what publish sends (is_global=True, or listen --global, gets this)"
        )
    elif published.scope != subscribed.scope:
        yield _of_scopes(published.scope, subscribed.scope, default_scope)
    if published.claims != subscribed.claims:
        if published.claims is not None and subscribed.claims is not None:
            yield "the claims of the two tokens differ; they have to be equal, values and all"
        else:
            having, lacking = ("the event", "the subscription")
            if published.claims is None:
                having, lacking = lacking, having
            yield f"{having} has a token and {lacking} has none; both need one with equal claims, or neither"


def _of_scopes(published: str, subscribed: str, default: str) -> str:
    if _has_overrides(published) != _has_overrides(subscribed):
        hint = "both sides have to give the same context overrides, or none"
    elif published == default:
        hint = "the publisher is in the default context (is its invocation registered, under the id that was sent?)"
    elif subscribed == default:
        hint = "the subscription is in the default context (subscribe with the invocation= that is meant)"
    else:
        hint = "each side is in the context of its invocation"
    return f"it was published in {_spoken(published)}, and the subscription is in {_spoken(subscribed)}; {hint}"


def _has_overrides(scope: str) -> bool:
    return scope.partition(" ")[0] == "overrides"


def _spoken(scope: str) -> str:
    if _has_overrides(scope):
        return f"the context overrides [{scope.removeprefix('overrides').strip()}]"
    return f"the default scope [{scope}]"

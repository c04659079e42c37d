"""Why a subscriber did not get an event: the near matches among what was published."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from ._channels import Address
from ._records import RecordedEvent
from ._sidecar import Sidecar

_SHOWN = 5


def why_not(sidecar: Sidecar, address: Address, since: float) -> str:
    """Explains in a few lines why nothing came.

    Args:
        sidecar: What was published.
        address: Where the subscriber listens.
        since: When it subscribed, in seconds of the emulator's clock.

    Returns:
        What was published meanwhile that is like it, with what differs, and the calls that failed. No payload, no claim.
    """
    events = [event for event in list(sidecar.events) if event.at >= since]
    missed = [event for event in events if event.address != address]
    near = [event for event in missed if _is_near(event.channel, address.channel)]
    lines = [f"  {_called(event)}: {'; '.join(_differences(event.address, address))}" for event in near[-_SHOWN:]]
    if lines:
        lines.insert(0, "Published since it was subscribed, but not to it:")
    elif missed:
        channels = ", ".join(sorted({repr(event.channel) for event in missed}))
        lines.append(f"Since it was subscribed, events were published only on {channels}.")
    elif events:
        lines.append("All events that were published to it have been received.")
    else:
        lines.append("Since it was subscribed, nothing was published.")
    failed = [call for call in list(sidecar.requests) if call.at >= since and call.code is not None]
    for call in failed[-_SHOWN:]:
        lines.append(f"  A call of {call.operation} was answered {call.status or 'by a reset'}: {call.code}.")
    return "\n".join(lines)


def _is_near(published: str, subscribed: str) -> bool:
    return bool(difflib.get_close_matches(published.lower(), [subscribed.lower()], cutoff=0.8))


def _called(event: RecordedEvent) -> str:
    return f"{'publish_global' if event.is_global else 'publish'} on {event.channel!r}"


def _differences(published: Address, subscribed: Address) -> Iterator[str]:
    if published.channel != subscribed.channel:
        yield f"the subscription is on {subscribed.channel!r} (names are case-sensitive)"
    if published.installation != subscribed.installation:
        yield f"in the installation {published.installation}, and the subscription is in {subscribed.installation}"
    if published.is_global != subscribed.is_global:
        yield f"the subscription is {'global' if subscribed.is_global else 'scoped'}; the two never meet"
    elif published.scope != subscribed.scope:
        yield f"in the scope '{published.scope}', and the subscription is in '{subscribed.scope}'"
    if published.claims != subscribed.claims:
        have = {True: "without a token", False: "with a token"}
        if (published.claims is None) == (subscribed.claims is None):
            yield "the claims of the two tokens differ"
        else:
            published_has, subscribed_has = have[published.claims is None], have[subscribed.claims is None]
            yield f"published {published_has}, and the subscription is {subscribed_has}"

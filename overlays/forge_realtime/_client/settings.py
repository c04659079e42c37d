"""Settings of a client. They load with the first client, as attrs takes long."""

from __future__ import annotations

from attrs import field, frozen

from .._core.call import Instrument
from .._core.errors import UsageError
from .._core.http import httpx
from .._core.policy import RetryPolicy
from .address import checked_address


def _base_url(value: str | httpx.URL | None) -> str | None:
    return None if value is None else checked_address("base_url", str(value))


def _check_retry(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, RetryPolicy):
        raise UsageError("retry takes a RetryPolicy, for example RetryPolicy(deadline=10.0).")


def _check_instrument(_instance: object, _attribute: object, value: Instrument | None) -> None:
    if isinstance(value, type) or (value is not None and not hasattr(value, "call_flow")):
        raise UsageError("instrument takes an Instrumentation, for example forge_realtime.otel.Instrumentation().")


def _check_show_response(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError("show_response takes True or False.")


@frozen(kw_only=True, eq=False, repr=False)
class ClientSettings:
    """Settings of one client. A sibling with other options has a copy with changes.

    Attributes:
        base_url: Address of the sidecar; None for the environment's at each call, so that a module which makes its
            client can be imported anywhere.
        retry: When calls are retried.
        instrument: What traces and measures calls; None if nothing does.
        show_response: Whether the message of an error quotes the platform's response.
    """

    base_url: str | None = field(default=None, converter=_base_url)
    retry: RetryPolicy = field(factory=RetryPolicy, validator=_check_retry)
    instrument: Instrument | None = field(default=None, validator=_check_instrument)
    show_response: bool = field(default=False, validator=_check_show_response)

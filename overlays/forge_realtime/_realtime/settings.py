"""Settings of a Realtime client. They load with the first client."""

from __future__ import annotations

from attrs import field, frozen

from .._client.settings import ClientSettings
from .._core.encoding import Encode
from .._core.errors import UsageError
from .._core.retry import is_plain_function
from .._quota.limiter import Quota


def _check_quota(_instance: object, _attribute: object, value: Quota | None) -> None:
    if value is not None and not isinstance(value, Quota):
        raise UsageError("quota takes a Quota, for example Quota(per_second=40.0), or None.")


def _check_encode(_instance: object, _attribute: object, value: Encode | None) -> None:
    if value is not None and not is_plain_function(value):
        raise UsageError(
            "encode takes a plain function (not async) of the payload that returns str or bytes, such as orjson.dumps."
        )


@frozen(kw_only=True, eq=False, repr=False)
class RealtimeSettings(ClientSettings):
    """Settings of one Realtime client.

    Attributes:
        quota: Rate limit for calls; None disables it.
        encode: Encodes payloads other than `str`; None for the `json` module.
    """

    quota: Quota | None = field(default=None, validator=_check_quota)
    encode: Encode | None = field(default=None, validator=_check_encode)

"""The value of the header `forge-proxy-authorization`, built and checked here and nowhere else."""

from __future__ import annotations

import re
from typing import Literal

from attrs import field, frozen

from .errors import UsageError

HEADER = "forge-proxy-authorization"

# Visible ASCII without the comma and the equals sign, which separate the fields of the header.
_VALUE = re.compile(r"[!-+\x2d-<>-~]+")


@frozen
class Authorization:
    """On whose behalf a call is made, in the documented grammar of the header.

    The value reads `Forge ` and then comma-separated `key=value` pairs. Everything is checked when the object is
    built, so that no value can leave its field or add a header. `repr` shows no id.

    Args:
        invocation_id: The id of the invocation that the container answers (`x-forge-invocation-id`).
        installation_id: The installation to act for, when no invocation is at hand. Exactly one of the two is given.
        as_: Whether to act as the app or as a user; None leaves it to the platform.
        account_id: The Atlassian account to act as; only with `as_="user"`.

    Raises:
        UsageError: The combination is not in the documented grammar, or a value cannot stand in the header.
    """

    invocation_id: str | None = field(default=None, kw_only=True, repr=False)
    installation_id: str | None = field(default=None, kw_only=True, repr=False)
    as_: Literal["app", "user"] | None = field(default="app", kw_only=True)
    account_id: str | None = field(default=None, kw_only=True, repr=False)
    header: str = field(init=False, repr=False, eq=False)
    """The value to send."""

    def __attrs_post_init__(self) -> None:
        if (self.invocation_id is None) == (self.installation_id is None):
            raise UsageError(
                "Give exactly one of invocation_id and installation_id: a call is made either for the invocation that "
                "the container answers (for_invocation) or for an installation (for_installation), and its id is a string."
            )
        if self.as_ not in ("app", "user", None):
            raise UsageError("as_ must be 'app', 'user' or None.")
        if self.account_id is not None and self.as_ != "user":
            raise UsageError("account_id names the user to act as: give it together with as_='user', or leave it out.")
        fields = {
            "as": self.as_,
            "accountId": self.account_id,
            "id": self.invocation_id,
            "installationId": self.installation_id,
        }
        for key, value in fields.items():
            if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
                raise UsageError(
                    f"The value for {key} cannot stand in the header {HEADER}: it must be a non-empty string of visible "
                    "ASCII characters without comma and equals sign. Pass it exactly as the platform gave it."
                )
        pairs = ",".join(f"{key}={value}" for key, value in fields.items() if value is not None)
        object.__setattr__(self, "header", f"Forge {pairs}")

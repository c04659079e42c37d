"""The header `forge-proxy-authorization`: the only place that builds and checks it."""

from __future__ import annotations

import re
from typing import Literal

from attrs import field, frozen

from .errors import UsageError
from .group import HEADER

# Visible ASCII without the comma and the equals sign, which separate the fields of the header.
_VALUE = re.compile(r"[!-+\x2d-<>-~]+")


def bare_installation_id(value: str | None) -> str | None:
    """Return the UUID of an installation, the part after the last `/` of its ARI.

    One installation has two spellings: `/v1/installations` lists `<uuid>`, and `/invocation/context` responds with
    `ari:cloud:ecosystem::installation/<uuid>`.
    """
    return value.rpartition("/")[2] if isinstance(value, str) else value


@frozen
class Authorization:
    """Whom a call is made for, in the documented grammar of the header.

    The header reads `Forge ` and then comma-separated `key=value` pairs. Every value is checked here, so that none can
    leave its field or add a header. `repr` shows no id.

    Source: the documented grammar of `forge-proxy-authorization`, https://developer.atlassian.com/platform/forge.

    Args:
        invocation_id: Id of the invocation that the container is answering (`x-forge-invocation-id`).
        installation_id: Installation to act for, if there is no invocation, as a UUID or an ARI. The header carries the
            UUID, as `/v1/installations` lists it. Give exactly one of the two.
        as_: Act as the app or as a user; None leaves it to the platform.
        account_id: Atlassian account to act as; only with `as_="user"`.

    Raises:
        UsageError: The grammar does not allow the combination or a value.
    """

    invocation_id: str | None = field(default=None, kw_only=True, repr=False)
    installation_id: str | None = field(default=None, kw_only=True, repr=False, converter=bare_installation_id)
    as_: Literal["app", "user"] | None = field(default="app", kw_only=True)
    account_id: str | None = field(default=None, kw_only=True, repr=False)
    header: str = field(init=False, repr=False, eq=False)
    """Value of the header."""

    def __attrs_post_init__(self) -> None:
        if (self.invocation_id is None) == (self.installation_id is None):
            raise UsageError(
                "Give exactly one of invocation_id and installation_id: a call is made for the invocation that the "
                "container is answering (for_invocation) or for an installation (for_installation). Its id is a string."
            )
        if self.as_ not in ("app", "user", None):
            raise UsageError("as_ must be 'app', 'user' or None.")
        if self.account_id is not None and self.as_ != "user":
            raise UsageError("account_id names the user to act as: pass as_='user' with it, or leave it out.")
        fields = {
            "as": self.as_,
            "accountId": self.account_id,
            "id": self.invocation_id,
            "installationId": self.installation_id,
        }
        for key, value in fields.items():
            if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
                raise UsageError(
                    f"{key} cannot be sent in the header {HEADER}: it must be a non-empty string of visible ASCII "
                    "characters without comma and equals sign. Pass it exactly as the platform gave it."
                )
        pairs = ",".join(f"{key}={value}" for key, value in fields.items() if value is not None)
        object.__setattr__(self, "header", f"Forge {pairs}")

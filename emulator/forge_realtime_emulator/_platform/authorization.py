"""Parser of the header `forge-proxy-authorization`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import RefusedError

_KEYS = ("as", "id", "installationId", "accountId")
_VALUE = re.compile(r"[!-+\--<>-~]+")


@dataclass(frozen=True, slots=True)
class Authorization:
    """Parsed authorization header of a call.

    Attributes:
        invocation_id: The `id`, or `None` if the call is on behalf of an installation.
        installation_id: The `installationId`, or `None` if the call is within an invocation.
        acts_as: The `as`: `"app"`, `"user"`, or `None` if the header has none.
        account_id: The `accountId`, or `None`; hidden in the repr.
    """

    invocation_id: str | None
    installation_id: str | None
    acts_as: str | None
    account_id: str | None = field(repr=False)


def parse_authorization(header: str, values: Sequence[str]) -> Authorization:  # noqa: C901 - one check per rule
    """Parse the authorization header of a call.

    The documented grammar is `Forge ` followed by comma-separated `key=value` pairs in any order. Atlassian does not
    say how it treats white space, escapes, duplicates, or `id` together with `installationId`. The emulator is strict:
    no white space, no escapes, no duplicates, exactly one of the two ids, and values of printable ASCII without comma
    and equals sign.

    Args:
        header: The name of the header, for messages.
        values: All values of the header.

    Raises:
        RefusedError: Status 401; the message starts with the documented `Unauthorized request`.
    """
    if not values:
        raise _unauthorized(f"the header {header} is missing. Send 'Forge as=app,id=<invocation id>'.")
    if len(values) > 1:
        raise _unauthorized(f"the header {header} came {len(values)} times. Send it once.")
    scheme, space, pairs = values[0].partition(" ")
    if scheme != "Forge" or not space:
        raise _unauthorized(f"the header {header} must start with 'Forge ', exactly so and with one space.")
    found: dict[str, str] = {}
    for position, pair in enumerate(pairs.split(","), start=1):
        key, equals, value = pair.partition("=")
        where = f"part {position} of the header {header}"
        if not equals:
            raise _unauthorized(f"{where} is not a key=value pair. Separate pairs by a comma only.")
        if key not in _KEYS:
            raise _unauthorized(f"{where} has an unknown key. Allowed are {', '.join(_KEYS)}, without spaces around.")
        if key in found:
            raise _unauthorized(f"the header {header} has {key} twice. Send it once.")
        if not value:
            raise _unauthorized(f"{key} in the header {header} is empty. Give it a value or leave it out.")
        if not _VALUE.fullmatch(value):
            raise _unauthorized(
                f"{key} in the header {header} has a character that is not allowed."
                " Use printable ASCII without space, comma and equals sign."
            )
        found[key] = value
    if ("id" in found) == ("installationId" in found):
        raise _unauthorized(
            f"the header {header} must have exactly one of id and installationId"
            f" and has {'both' if 'id' in found else 'neither'}."
        )
    if found.get("as", "app") not in ("app", "user"):
        raise _unauthorized(f"as in the header {header} must be app or user.")
    if "accountId" in found and found.get("as") != "user":
        raise _unauthorized(f"accountId in the header {header} is only allowed with as=user.")
    return Authorization(
        invocation_id=found.get("id"),
        installation_id=found.get("installationId"),
        acts_as=found.get("as"),
        account_id=found.get("accountId"),
    )


def _unauthorized(problem: str) -> RefusedError:
    return RefusedError(401, "UNAUTHORIZED", f"Unauthorized request: {problem}")

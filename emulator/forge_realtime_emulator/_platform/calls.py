"""Lists of what happened, newest first, with filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .records import AnyRecord, RecordedEvent, RecordedInvoke, RecordedRequest
from .sidecar import Sidecar

_LIMIT = 100
"""Number of rows in a list unless more are asked for."""

_STATUS = re.compile("[1-5]xx|[1-5][0-9][0-9]|reset")
_NUMBER = re.compile("[1-9][0-9]{0,14}")

T = TypeVar("T")

FILTERS: Mapping[str, str] = {
    "status": "A status such as 429, a class of them such as 4xx, or reset.",
    "failed": "true: calls that failed, whatever their status is; false: the others.",
    "operation": "The operationId.",
    "channel": "The name of the channel, exactly.",
    "installation": "The installation.",
    "delivered": "true: some subscriber got the event; false: nobody did.",
    "text": "A text in the payload, in lower or upper case.",
    "before": "The number of a record: only what is older.",
    "limit": f"The number of rows; by default {_LIMIT}.",
}
"""What a list can be asked for, each name with its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Filter of a list. What is `None` lets everything pass; see `FILTERS`."""

    status: str | None = None
    failed: bool | None = None
    operation: str | None = None
    channel: str | None = None
    installation: str | None = None
    delivered: bool | None = None
    text: str | None = None
    before: int | None = None
    limit: int = _LIMIT

    def passes(self, row: AnyRecord) -> bool:
        """Return whether a row is in the list."""
        if isinstance(row, RecordedInvoke):
            # It has neither operation nor channel, installation or payload.
            wanted = (self.operation, self.channel, self.installation, self.delivered, self.text)
            return not any(value is not None for value in wanted) and self._passes_outcome(row.status or 0, row.code)
        if isinstance(row, RecordedEvent):
            return (
                self.operation is None
                and self._passes_place(row.channel, row.address.installation, row.payload, row)
                and self._passes_outcome(200, None)
            )
        return (
            self.operation in (None, row.operation)
            and self._passes_place(row.channel, row.installation, row.payload, row.event)
            and self._passes_outcome(row.status, row.code)
        )

    def _passes_place(
        self, channel: object, installation: str | None, payload: object, event: RecordedEvent | None
    ) -> bool:
        return (
            self.channel in (None, channel)
            and self.installation in (None, installation)
            and (self.delivered is None or (event is not None and (event.delivered > 0) is self.delivered))
            and (self.text is None or (isinstance(payload, str) and self.text.lower() in payload.lower()))
        )

    def _passes_outcome(self, status: int, code: str | None) -> bool:
        if self.failed is not None and (code is not None) is not self.failed:
            return False
        if self.status is None:
            return True
        shown = str(status) if status else "reset"
        return self.status in (shown, f"{shown[0]}xx")


def read_filter(query: Mapping[str, str]) -> Filter:
    """Read a filter from the query of a request.

    Raises:
        ValueError: The query has another name or value than `FILTERS` says.
    """
    if unknown := [name for name in query if name not in FILTERS]:
        raise ValueError(f"{', '.join(unknown)}: unknown; a list takes {', '.join(FILTERS)}")
    if not _STATUS.fullmatch(query.get("status", "200")):
        raise ValueError("status: must be one such as 429, a class such as 4xx, or reset")
    return Filter(
        status=query.get("status"),
        failed=_boolean(query, "failed"),
        operation=query.get("operation"),
        channel=query.get("channel"),
        installation=query.get("installation"),
        delivered=_boolean(query, "delivered"),
        text=query.get("text"),
        before=_number(query, "before", None),
        limit=_number(query, "limit", _LIMIT),
    )


def _boolean(query: Mapping[str, str], name: str) -> bool | None:
    value = query.get(name)
    if value not in (None, "true", "false"):
        raise ValueError(f"{name}: must be true or false")
    return None if value is None else value == "true"


def _number(query: Mapping[str, str], name: str, default: T) -> int | T:
    value = query.get(name)
    if value is None:
        return default
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{name}: must be a whole number of at least 1")
    return int(value)


def list_records(sidecar: Sidecar, wanted: Filter) -> Iterator[AnyRecord | None]:
    """Yield the last attempt of each call, the events that pages published, and the pages' calls, newest first.

    Yields `None` now and then without a row, so that the caller can let others run: a search may take long.
    """
    of_pages = (event for event in sidecar.events if event.call is None)
    rows: list[AnyRecord] = [*sidecar.requests, *of_pages, *sidecar.invokes]
    rows.sort(key=lambda row: row.id, reverse=True)
    seen: set[int] = set()
    found = 0
    for number, row in enumerate(rows):
        if number % 20 == 0:
            yield None
        if isinstance(row, RecordedRequest):
            if row.call in seen:
                continue
            seen.add(row.call)
        if (wanted.before is None or row.id < wanted.before) and wanted.passes(row):
            yield row
            found += 1
            if found == wanted.limit:
                return


def find_call(sidecar: Sidecar, id_: int) -> list[AnyRecord]:
    """Return the attempts of a call by the number of any of its records, or a page's event or call, or nothing."""
    call = next((event.call for event in sidecar.events if event.id == id_), None)
    # The first attempt, whose number the call has, may be forgotten.
    call = next((request.call for request in sidecar.requests if id_ in (request.id, request.call)), call)
    if call is not None:
        return [request for request in sidecar.requests if request.call == call]
    return [row for row in (*sidecar.events, *sidecar.invokes) if row.id == id_]

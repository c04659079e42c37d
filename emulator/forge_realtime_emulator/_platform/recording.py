"""Recordings: all records with settings and contexts, in one JSON object.

A recording has headers, tokens and payloads in it, so that its calls can be sent again. It is as secret as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .authorization import Authorization
from .channels import Address, Listener
from .contexts import Contexts
from .errors import EmulatorError
from .records import AnyRecord, RecordedEvent, RecordedInvoke, RecordedRequest, bytes_of
from .settings import Settings
from .sidecar import Sidecar
from .strict_json import parse

VERSION = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """Recording that was read.

    Attributes:
        settings: The settings.
        contexts: The contexts.
        records: The attempts of calls, the events and the pages' calls of the service; hidden in the repr.
    """

    settings: Settings
    contexts: Contexts = field(repr=False)
    records: list[AnyRecord] = field(repr=False)


def write_recording(sidecar: Sidecar) -> Iterator[str]:
    """Write what is recorded, piece by piece: one record may have a megabyte."""
    head = {"version": VERSION, "settings": asdict(sidecar.settings), "contexts": sidecar.contexts.to_json()}
    of_pages = [event for event in sidecar.events if event.call is None]
    yield json.dumps(head)[:-1]
    for name, records in (("calls", [*sidecar.requests]), ("events", of_pages), ("invokes", [*sidecar.invokes])):
        yield f', "{name}": ['
        for number, record in enumerate(records):
            yield f"{', ' if number else ''}{json.dumps(record.details())}"
        yield "]"
    yield "}"


def read_recording(path: str | Path) -> Recording:
    """Read a recording from a file.

    Raises:
        EmulatorError: The file is not a recording.
    """
    try:
        return parse_recording(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmulatorError(f"{path}: cannot be read as a recording: {error}.") from error


def parse_recording(text: str) -> Recording:
    """Parse a recording.

    Raises:
        ValueError: The text is not a recording. The message says what is wrong.
    """
    try:
        given = parse(text)
        if not isinstance(given, dict) or given.get("version") != VERSION:
            raise ValueError(f"its version is not {VERSION}; take what GET /_emulator/recording returned")
        contexts = Contexts()
        contexts.register(given["contexts"])
        requests = [_read_request(call) for call in given["calls"]]
        events = [_read_event(event) for event in given["events"]]
        events += [request.event for request in requests if request.event is not None]
        invokes = [_read_invoke(invoke) for invoke in given["invokes"]]
        records: list[AnyRecord] = [*requests, *events, *invokes]
        if len({record.id for record in records}) < len(records):
            raise ValueError("two of its records have the same id")
        return Recording(Settings(**given["settings"]), contexts, records)
    except json.JSONDecodeError:
        raise ValueError("it is not valid JSON") from None
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"it has another form: {error}") from None


_LARGEST = 2**53
"""No number reaches it: in the console, larger ones are not exact."""

_TEXT, _NUMBER, _OPTIONAL = (str,), (int, float), (str, type(None))
_REQUEST: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "call": (int,),
    "attempt": (int,),
    "at": _NUMBER,
    "duration": _NUMBER,
    "operation": _TEXT,
    "status": (int,),
    "authorization": (dict, type(None)),
    "channel": (object,),
    "installation": _OPTIONAL,
    "code": _OPTIONAL,
    "message": _OPTIONAL,
    "detail": _OPTIONAL,
    "fault": (bool,),
    "request": (dict,),
    "response": (dict, type(None)),
    "event": (dict, type(None)),
}
_EVENT: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "call": (int, type(None)),
    "at": _NUMBER,
    "installation": _TEXT,
    "channel": _TEXT,
    "isGlobal": (bool,),
    "scope": _TEXT,
    "claims": (object,),
    "payload": _TEXT,
    "eventId": _OPTIONAL,
    "eventTimestamp": _OPTIONAL,
    "delivered": (int,),
    "nearMisses": (list,),
    "subscribers": (list,),
}
_INVOKE: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "at": _NUMBER,
    "duration": _NUMBER,
    "method": _TEXT,
    "path": _TEXT,
    "invocation": _OPTIONAL,
    "status": (int, type(None)),
    "code": _OPTIONAL,
    "message": _OPTIONAL,
}
_LISTENER: dict[str, tuple[type, ...]] = {"id": (int,), "via": _TEXT, "invocation": _OPTIONAL, "since": _NUMBER}
_AUTHORIZATION: dict[str, tuple[type, ...]] = dict.fromkeys(("id", "installationId", "as", "accountId"), _OPTIONAL)
_MESSAGE: dict[str, tuple[type, ...]] = {"headers": (dict,), "body": _TEXT}
_SENT: dict[str, tuple[type, ...]] = {**_MESSAGE, "method": _TEXT, "path": _TEXT}
"""The fields that are read of each part, with their types. A schema's check of 10,000 records would take seconds."""

_LAST_IN_HEADERS = "\xff"


def _take(part: Any, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Take the fields of a part, and check their types."""
    if not isinstance(part, dict):
        raise ValueError("a part of it must be an object")  # noqa: TRY004 - the caller expects one kind of error
    for name, kinds in types.items():
        if not isinstance(part[name], kinds) or (isinstance(part[name], bool) and {int, float} & {*kinds}):
            raise ValueError(f"{name} of a record has another type")
        if isinstance(part[name], int | float) and not 0 <= part[name] < _LARGEST:
            raise ValueError(f"{name} of a record is out of range")
    return {name: part[name] for name in types}


def _read_request(part: Any) -> RecordedRequest:
    line = _take(part, _REQUEST)
    sent, event, response = _take(line.pop("request"), _SENT), line.pop("event"), line.pop("response")
    if response is not None:
        response = _take(response, _MESSAGE)
    raw = bytes_of(sent["body"])
    # The body of a call that was refused before it was read is not in the record.
    is_read = line.pop("channel") is not None
    return RecordedRequest(
        **line
        | {
            "authorization": _read_authorization(line["authorization"]),
            "headers": _read_headers(sent["headers"]),
            "body": parse(raw.decode()) if is_read else None,
            "method": sent["method"],
            "path": sent["path"],
            "raw": raw,
            "response_headers": None if response is None else _encode_headers(response["headers"]),
            "response_body": b"" if response is None else bytes_of(response["body"]),
            "event": None if event is None else _read_event(event),
        }
    )


def _read_authorization(part: Any) -> Authorization | None:
    if part is None:
        return None
    given = _take(part, _AUTHORIZATION)
    return Authorization(
        invocation_id=given["id"],
        installation_id=given["installationId"],
        acts_as=given["as"],
        account_id=given["accountId"],
    )


def _read_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    given = _take(headers, dict.fromkeys(headers, _TEXT))
    if max("".join([*given, *given.values()]), default="") > _LAST_IN_HEADERS:
        raise ValueError("a header of a record has a character that HTTP cannot carry")
    return given


def _encode_headers(headers: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    given = _read_headers(headers).items()
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in given)


def _read_event(part: Any) -> RecordedEvent:
    given = _take(part, _EVENT)
    claims = given["claims"]
    address = Address(
        installation=given["installation"],
        channel=given["channel"],
        is_global=given["isGlobal"],
        scope=given["scope"],
        claims=None if claims is None else json.dumps(claims, sort_keys=True),
    )
    return RecordedEvent(
        address=address,
        payload=given["payload"],
        event_id=given["eventId"],
        event_timestamp=given["eventTimestamp"],
        delivered=given["delivered"],
        at=given["at"],
        near_misses=tuple(map(str, given["nearMisses"])),
        id=given["id"],
        call=given["call"],
        listeners=tuple(Listener(address=address, **_take(one, _LISTENER)) for one in given["subscribers"]),
    )


def _read_invoke(part: Any) -> RecordedInvoke:
    return RecordedInvoke(**_take(part, _INVOKE))

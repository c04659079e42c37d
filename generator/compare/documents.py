"""Comparison of two documents: changes in the Realtime part, and counts of changes outside of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from generator.compare.operations import (
    Operation,
    content_of,
    operations_outside,
    read_operations,
    reading,
    response_content,
)
from generator.compare.rules import Change
from generator.compare.schema_types import Reader
from generator.compare.schemas import Location, SchemaComparison, paired_by_content
from generator.document import Document
from generator.names import attribute_name


@dataclass(frozen=True)
class Comparison:
    """Result for the Realtime part.

    Attributes:
        changes: The changes. Equal changes of several operations are one.
        read_only: Models that occur only in responses, so users never construct them.
    """

    changes: list[Change]
    read_only: frozenset[str]


def compare(old: Document, new: Document) -> Comparison:
    """Compare two derived documents.

    Args:
        old: The document of the client that users have.
        new: The document of the client that they would get.
    """
    comparison = _DocumentComparison(old, new)
    comparison.run()
    models = comparison.schemas.models
    return Comparison(_merge(comparison.schemas.changes), frozenset(models["response"] - models["request"]))


def compare_outside(old: Document, new: Document) -> dict[str, dict[str, int]]:
    """Count the operations that were added, removed or changed outside of the Realtime part.

    Args:
        old: A whole published document.
        new: Another one.

    Returns:
        Counts by tag, sorted by tag. Tags without changes are left out.
    """
    before, after = operations_outside(old), operations_outside(new)
    counts: dict[str, dict[str, int]] = {}
    for operation in before.keys() | after.keys():
        one, other = before.get(operation), after.get(operation)
        if one != other:
            kind = "added" if one is None else "removed" if other is None else "changed"
            tag = (other or one or ("", ""))[0]
            of_tag = counts.setdefault(tag, {"added": 0, "removed": 0, "changed": 0})
            of_tag[kind] += 1
    return dict(sorted(counts.items()))


class _DocumentComparison:
    def __init__(self, old: Document, new: Document) -> None:
        self.documents = (old, new)
        self.readers = (Reader(old), Reader(new))
        self.schemas = SchemaComparison(*self.readers)

    def run(self) -> None:
        before, after = ({it.module: it for it in read_operations(reader)} for reader in self.readers)
        pairs = self._pairs(before, after)
        for module, operation in before.items():
            if module in pairs:
                self._compare_operations(operation, after[pairs[module]])
            else:
                self.schemas.add("operation removed", self._location(operation, "request", ""), operation.title)
                self._note(operation, 0)
        for module, operation in after.items():
            if module not in pairs.values():
                self.schemas.add("operation added", self._location(operation, "request", ""), new=operation.title)
                self._note(operation, 1)
        about = [
            {key: value for key, value in document.items() if key not in {"paths", "components", "security"}}
            for document in self.documents
        ]
        if about[0] != about[1]:
            self.schemas.add("description changed", Location("response", "the document", "", ()))

    def _pairs(self, before: dict[str, Operation], after: dict[str, Operation]) -> dict[str, str]:
        """Match operations of both sides by name, then by address, then by content."""
        pairs: dict[str, str] = {}
        for feature in (lambda it, _: it.module, lambda it, _: it.title, self._content):
            old = {module: feature(it, 0) for module, it in before.items() if module not in pairs}
            new = {module: feature(it, 1) for module, it in after.items() if module not in pairs.values()}
            pairs |= paired_by_content(old, new)
        return pairs

    def _content(self, operation: Operation, side: int) -> str:
        canonical = self.readers[side].canonical
        bodies = {name: canonical(media.get("schema", {})) for name, media in content_of(operation.body).items()}
        responses = {
            status: {name: canonical(media.get("schema", {})) for name, media in content_of(response).items()}
            for status, response in operation.responses.items()
        }
        return json.dumps([operation.content.get("summary"), bodies, responses], sort_keys=True)

    def _location(self, operation: Operation, direction: str, part: str, python: tuple[str, ...] = ()) -> Location:
        return Location(
            direction, operation.title, part, python or (operation.module,), (operation.name, operation.name)
        )

    def _note(self, operation: Operation, side: int) -> None:
        responses = [("response", f"response_{status}", part) for status, part in operation.responses.items()]
        for direction, name, part in [("request", "body", operation.body), *responses]:
            location = replace(self._location(operation, direction, ""), names=(name, name))
            for media in content_of(part).values():
                self.schemas.note(location, media.get("schema", {}), self.readers[side], side)

    def _compare_operations(self, old: Operation, new: Operation) -> None:
        location = replace(self._location(new, "request", ""), parents=(old.name, new.name))
        if old.module != new.module:
            renamed = replace(location, python=(old.module, new.module))
            self.schemas.add("operation renamed", renamed, old.module, new.module)
        if (old.method, _blanked(old.path)) != (new.method, _blanked(new.path)):
            self.schemas.add("operation moved", location, old.title, new.title)
        deprecated = [operation.content.get("deprecated", False) for operation in (old, new)]
        self.schemas.compare_deprecated(old=deprecated[0], new=deprecated[1], location=location, subject="operation ")
        descriptions = [
            {key: value for key, value in operation.content.items() if key in _DESCRIPTIONS or key.startswith("x-")}
            for operation in (old, new)
        ]
        if descriptions[0] != descriptions[1]:
            self.schemas.add("description changed", location)
        if old.security != new.security:
            # Users never pass the header: the hand-written classes build it.
            classes = replace(location, python=("RealtimeClient", "AsyncRealtimeClient"))
            self.schemas.add("security changed", classes, old.security, new.security)
        self._compare_parameters(old, new)
        self._compare_bodies(old, new)
        self._compare_responses(old, new)

    def _compare_parameters(self, old: Operation, new: Operation) -> None:
        before, after = old.parameters, new.parameters

        def at(key: tuple[str, str], new_key: tuple[str, str] | None = None) -> Location:
            python = tuple(dict.fromkeys(f"{new.name}({attribute_name(name)})" for _, name in (key, new_key or key)))
            part = f"{key[0]} parameter {key[1]}"
            location = replace(self._location(new, "request", part, python), parents=(old.name, new.name))
            return replace(location, names=(key[1], (new_key or key)[1]))

        removed, added = [key for key in before if key not in after], [key for key in after if key not in before]
        moved = {
            key: other
            for key in removed
            for other in added
            if key[1] == other[1]
            and "path" not in (key[0], other[0])
            and before[key].get("required", False) == after[other].get("required", False)
        }
        renamed: dict[tuple[str, str], tuple[str, str]] = {}
        for location in ("path", "query", "header", "cookie"):
            contents = [
                {
                    key[1]: (readers.canonical(side[key].get("schema", {})), side[key].get("required", False))
                    for key in keys
                    if key[0] == location and key not in moved and key not in moved.values()
                }
                for readers, side, keys in zip(self.readers, (before, after), (removed, added), strict=True)
            ]
            renamed |= {
                (location, name): (location, other)
                for name, other in paired_by_content(contents[0], contents[1]).items()
            }
        for key in before:
            other = renamed.get(key) or moved.get(key) or key
            if other not in after:
                self.schemas.add("parameter removed", at(key), key[1])
                self.schemas.note(at(key), before[key].get("schema", {}), self.readers[0], 0)
                continue
            if key in renamed:
                self.schemas.add("parameter renamed", at(key, other), key[1], other[1])
            elif key in moved:
                self.schemas.add("parameter moved", at(key, other), key[0], other[0])
            self._compare_parameter(before[key], after[other], at(key, other))
        for key in added:
            if key not in moved.values() and key not in renamed.values():
                required = after[key].get("required", False)
                text = self.readers[1].text(after[key].get("schema", {}), new.name, key[1])
                self.schemas.add(f"parameter added, {'required' if required else 'optional'}", at(key), new=text)
                self.schemas.note(at(key), after[key].get("schema", {}), self.readers[1], 1)

    def _compare_parameter(self, old: Document, new: Document, location: Location) -> None:
        self.schemas.compare_required(old=old.get("required", False), new=new.get("required", False), location=location)
        self.schemas.compare_deprecated(
            old=old.get("deprecated", False), new=new.get("deprecated", False), location=location
        )
        known = {"name", "in", "required", "deprecated", "schema", *_SERIALIZATION}
        if {k: v for k, v in old.items() if k not in known} != {k: v for k, v in new.items() if k not in known}:
            self.schemas.add("description changed", location)
        self._compare_serialization(old, new, location)
        schemas = [parameter.get("schema", {}) for parameter in (old, new)]
        self.schemas.compare_values(schemas[0], schemas[1], location)
        self.schemas.compare(schemas[0], schemas[1], location)

    def _compare_bodies(self, old: Operation, new: Operation) -> None:
        location = self._location(new, "request", "body", (f"{new.name}(body)",))
        location = replace(location, parents=(old.name, new.name), names=("body", "body"))
        if not (old.body or new.body):
            return
        if not old.body:
            self.schemas.add(f"body added, {'required' if new.body.get('required') else 'optional'}", location)
            self._note(new, 1)
        elif not new.body:
            self.schemas.add("body removed", location)
            self._note(old, 0)
        else:
            self.schemas.compare_required(
                old=old.body.get("required", False), new=new.body.get("required", False), location=location
            )
            self._compare_content(old.body, new.body, location)

    def _compare_serialization(self, old: Document, new: Document, location: Location) -> None:
        keywords = [{key: value for key, value in part.items() if key in _SERIALIZATION} for part in (old, new)]
        if keywords[0] != keywords[1]:
            self.schemas.add("serialization changed", location)

    def _compare_content(self, old: Document, new: Document, location: Location) -> None:
        before, after = content_of(old), content_of(new)
        if old.get("description") != new.get("description"):
            self.schemas.add("description changed", location)
        removed, added = [name for name in before if name not in after], [name for name in after if name not in before]
        renamed = (
            {removed[0]: added[0]}
            if len(removed) == len(added) == 1 and reading(removed[0]) == reading(added[0])
            else {}
        )
        for name in removed:
            if name in renamed:
                self.schemas.add("content type renamed", location, name, renamed[name])
            else:
                self.schemas.add("content type removed", location, old=name)
        for name in added:
            if name not in renamed.values():
                self.schemas.add("content type added", location, new=name)
        for name, media in before.items():
            if (other := after.get(renamed.get(name, name))) is not None:
                known = {"schema", *_SERIALIZATION}
                rest = [{key: value for key, value in it.items() if key not in known} for it in (media, other)]
                if rest[0] != rest[1]:
                    self.schemas.add("description changed", location)
                if location.direction == "request":
                    self._compare_serialization(media, other, location)
                    self.schemas.compare(media.get("schema", {}), other.get("schema", {}), location)

    def _compare_response(self, old: Document, new: Document, location: Location) -> None:
        self._compare_content(old, new, location)
        (before, schema), (after, new_schema) = response_content(old), response_content(new)
        if schema is None or new_schema is None:
            if schema is not new_schema:
                self.schemas.add(f"response body {'added' if schema is None else 'removed'}", location)
        elif before != after:
            self.schemas.add("type changed", location, before, after)
        else:
            self.schemas.compare(schema, new_schema, location)

    def _compare_responses(self, old: Operation, new: Operation) -> None:
        before, after = old.responses, new.responses

        def at(status: str, new_status: str | None = None) -> Location:
            location = replace(self._location(new, "response", f"response {status}"), parents=(old.name, new.name))
            return replace(location, names=(f"response_{status}", f"response_{new_status or status}"))

        renamed = paired_by_content(
            {status: self._response_type(before[status], 0) for status in before if status not in after},
            {status: self._response_type(after[status], 1) for status in after if status not in before},
        )
        types = {self._response_type(response, 0) for response in before.values()}
        for status, response in before.items():
            other = renamed.get(status, status)
            if other not in after:
                self.schemas.add("status removed", at(status), old=status)
                continue
            if status in renamed:
                self.schemas.add("status renamed", at(status, other), status, other)
            self._compare_response(response, after[other], at(status, other))
            rest = [
                {k: v for k, v in it.items() if k not in {"description", "content"}} for it in (response, after[other])
            ]
            if rest[0] != rest[1]:
                self.schemas.add("description changed", at(status, other))
        for status, response in after.items():
            if status not in before and status not in renamed.values():
                known = self._response_type(response, 1) in types
                self.schemas.add("status added, same type" if known else "status added", at(status), new=status)
                if status.startswith(("4", "5")):
                    # For every client this status is an error, documented or not.
                    change = self.schemas.changes.pop()
                    self.schemas.changes.append(replace(change, rule=replace(change.rule, deployed=False)))
        for side, operation in enumerate((old, new)):
            self._note(operation, side)

    def _response_type(self, response: Document, side: int) -> str:
        kind, schema = response_content(response)
        if schema is None:
            return "nothing"
        # Two classes with the same content are different types.
        types = self.readers[side].types(schema, "", "response")
        return json.dumps([kind, self.readers[side].canonical(schema), [schema_type.model for schema_type in types]])


_DESCRIPTIONS = frozenset({"summary", "description", "tags", "externalDocs", "servers", "callbacks"})
# Keywords for the serialization of a value in an address, a header or a form.
_SERIALIZATION = frozenset({"style", "explode", "allowReserved", "content", "encoding"})


def _blanked(path: str) -> str:
    return "/".join("{}" if part.startswith("{") and part.endswith("}") else part for part in path.split("/"))


def _merge(changes: list[Change]) -> list[Change]:
    merged: dict[tuple[Any, ...], Change] = {}
    for change in changes:
        key = (change.kind, change.direction, change.python, change.old, change.new)
        first = merged.setdefault(key, change)
        merged[key] = replace(first, where=tuple(dict.fromkeys([*first.where, *change.where])))
    return list(merged.values())

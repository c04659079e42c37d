"""Step 4: check that the hand-written package still fits what was rendered, before anything is replaced."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from generator.document import Document, GeneratorError
from generator.paths import HAND_WRITTEN
from generator.pipeline.samples import samples, schema_validator
from generator.references import METHODS, resolve

_PACKAGE = HAND_WRITTEN.name
_SMOKE_CALLS = Path(__file__).with_name("smoke_calls.py")


# The arguments of each named call beside the channel: required and optional ones, with their properties in the request.
_CALLS = {
    "publish": ({"payload": "payload"}, {"token": "", "context_overrides": "options.contextOverrides"}),
    "publish_global": ({"payload": "payload"}, {"token": ""}),
    "sign_realtime_token": ({"claims": "claims"}, {"permissions": ""}),
}
_CHANNELS = {"publish": "name", "publish_global": "name", "sign_realtime_token": "channelName"}
# Sent if the document allows them. Those of `_FIXED` are sent anyway, because users cannot pass others.
_USUAL = {
    "name": "channel",
    "channelName": "channel",
    "payload": "payload",
    "claims": {"team": "red"},
    "options.contextOverrides": ["issue"],
}
_FIXED = {"permissions": ["subscribe", "publish"]}


def check_overlay_fit(document: Document, generated: Path, hand_written: Path) -> Sequence[str]:
    """Combine the generated and the hand-written package, and make every named call in all its forms.

    Each optional argument is passed alone and all together, and each documented response of success is read.

    Args:
        document: The derived document. Every request is validated against it.
        generated: The generated half of the package.
        hand_written: The hand-written half.

    Returns:
        The arguments of named calls for which the document has no property.

    Raises:
        GeneratorError: The package cannot be imported, a call fails, or a request is invalid. Names the line of the
            hand-written package to look at.
    """
    plan = [call for name, operation in _named_operations(document) for call in _plan(document, name, operation)]
    with tempfile.TemporaryDirectory(prefix="fit-") as folder:
        for half in (generated, hand_written):
            shutil.copytree(
                half, Path(folder) / _PACKAGE, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        result = _make_smoke_calls(Path(folder).resolve(), plan)
    if "error" in result:
        raise _misfit(hand_written, result["line"], result["error"])
    for request in result["sent"]:
        if problem := _find_problem(document, request):
            raise _misfit(hand_written, request["line"], problem)
    unsupported: Sequence[str] = result["unsupported"]
    return unsupported


def unsupported_arguments(folder: Path) -> set[str] | None:
    """Return the arguments of named calls for which the document has no property.

    Args:
        folder: The folder that holds the combined package.

    Returns:
        For example `publish(context_overrides=...)`. `None` if the package cannot be imported.
    """
    result = _make_smoke_calls(folder.resolve(), [])
    return None if "error" in result else set(result["unsupported"])


def _named_operations(document: Document) -> Iterator[tuple[str, Document]]:
    for item in document["paths"].values():
        for method in METHODS & item.keys():
            if (name := item[method].get("operationId")) in _CALLS:
                yield name, item[method]


def _plan(document: Document, name: str, operation: Document) -> Iterator[dict[str, Any]]:
    """Yield calls: arguments, and the status and body that the platform responds with."""
    required, optional = _CALLS[name]
    body = _json_schema(document, operation.get("requestBody", {}))
    channel = _argument(document, body, _CHANNELS[name])
    least = {argument: _argument(document, body, path) for argument, path in required.items()}
    more = {
        argument: _FIXED.get(argument) or (_argument(document, body, path) if path else None)
        for argument, path in optional.items()
    }
    responses = list(_responses(document, name, operation))
    for chosen in [{}, *({argument: value} for argument, value in more.items()), more]:
        status, response = responses[0]
        yield {"name": name, "channel": channel, "arguments": {**least, **chosen}, "status": status, "body": response}
    for status, response in responses[1:]:
        yield {"name": name, "channel": channel, "arguments": least, "status": status, "body": response}


def _argument(document: Document, schema: Any, path: str) -> Any:
    """Return what to pass for a property of the request: what is usual, or a sample if the document forbids that."""
    for name in path.split("."):
        schema = resolve(document, schema).get("properties", {}).get(name, {})
    restricted = {"enum", "pattern", "format", "properties", "items"} & resolve(document, schema).keys()
    if not restricted or schema_validator(document, schema).is_valid(_USUAL[path]):
        return _USUAL[path]
    return next(iter(samples(document, schema)), _USUAL[path])


def _responses(document: Document, name: str, operation: Document) -> Iterator[tuple[int, Any]]:
    for status, reference in operation["responses"].items():
        if not status.startswith("2"):
            continue
        code = int(status) if status.isdecimal() else 200
        response = resolve(document, reference)
        found = samples(document, _json_schema(document, response)) if response.get("content") else []
        bodies = [_without_errors(body) for body in found]
        if name == "sign_realtime_token":
            # Null comes with errors, which is a failure.
            bodies = [body for body in bodies if not isinstance(body, dict) or body.get("token", "") is not None]
        for number, body in enumerate(bodies):
            if body not in bodies[:number]:
                yield code, body
        if not bodies:
            yield code, None


def _without_errors(body: Any) -> Any:
    return {name: value for name, value in body.items() if name != "errors"} if isinstance(body, dict) else body


def _json_schema(document: Document, part: Document) -> Any:
    content = resolve(document, part).get("content", {})
    return content.get("application/json", next(iter(content.values()), {})).get("schema", {})


def _make_smoke_calls(folder: Path, plan: list[dict[str, Any]]) -> Any:
    # -I: ignore the working directory, the home directory and PYTHON* variables.
    process = subprocess.run(
        [sys.executable, "-I", "-B", "-X", "utf8", str(_SMOKE_CALLS), str(folder), _PACKAGE],
        check=False,
        input=json.dumps(plan),
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode != 0:
        raise GeneratorError(f"{_SMOKE_CALLS.name} failed:\n{process.stderr.strip()}\nRun `make setup`.")
    return json.loads(process.stdout)


def _misfit(hand_written: Path, line: Any, problem: str) -> GeneratorError:
    where = str(hand_written) if line is None else f"{hand_written.parent / line[0]}, line {line[1]}"
    return GeneratorError(
        f"{where}: the hand-written package no longer fits the document: {problem}\n"
        "Change that line, or describe the document as it was with an overlay in overlays/openapi."
    )


def _find_problem(document: Document, request: dict[str, Any]) -> str | None:
    operation = document["paths"][request["path"]][request["method"].lower()]
    errors = schema_validator(document, _json_schema(document, operation["requestBody"])).iter_errors(request["body"])
    problems = "; ".join(f"{error.json_path.replace('$', 'body', 1)}: {error.message}" for error in errors)
    return f"{operation['operationId']} sends an invalid request: {problems}" if problems else None

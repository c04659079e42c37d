"""Step 3: render the document as Python with openapi-python-client. Warnings are errors."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from openapi_schema_validator import oas31_format_checker
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from generator.document import Document, GeneratorError, canonical_json
from generator.names import operation_name
from generator.pipeline.samples import schema_validator
from generator.pipeline.select import require_openapi_3
from generator.references import METHODS, reached_components, resolve, walk
from generator.text import escape_hidden

# Another backend, if it happens to be installed, has other messages.
os.environ["OPENAPI_SPEC_VALIDATOR_SCHEMA_VALIDATOR_BACKEND"] = "jsonschema"


def render(document: Document, config: Path, output: Path) -> None:
    """Render a document into a new folder.

    Args:
        document: An OpenAPI 3.0 or 3.1 document.
        config: The configuration of openapi-python-client.
        output: The folder to make. An error can leave part of it behind: use a scratch folder.

    Raises:
        GeneratorError: The document is invalid, or openapi-python-client failed, warned or left something out.
    """
    _require_valid(document)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.json"
        path.write_text(canonical_json(document), encoding="utf-8")
        _run_openapi_python_client(path, document, config, output)
    _escape_hidden(output)
    _require_complete(document, output)
    _require_defined(document, output)


def tool_versions() -> dict[str, str]:
    """Return the versions of the programs that write the generated code.

    Raises:
        GeneratorError: One is not installed.
    """
    try:
        return {name: metadata.version(name) for name in ("openapi-python-client", "ruff")}
    except metadata.PackageNotFoundError as error:
        raise GeneratorError(f"{error.name} is not installed for {sys.executable}. Run `make setup`.") from error


def invalid_parts(document: Document) -> list[str]:
    """Return the errors of an OpenAPI 3.0 or 3.1 document, each with its location."""
    try:
        # The validator ignores a $ref without a target, and opens one to another document.
        reached_components(document, document)
    except GeneratorError as error:
        return [str(error)]
    if circular := _circular_parts(document):
        return circular
    validator = OpenAPIV30SpecValidator if document["openapi"].startswith("3.0.") else OpenAPIV31SpecValidator
    try:
        # The checks beyond the schema fail on documents that do not match the schema.
        errors = list(validator.schema_validator.iter_errors(document)) or list(validator(document).iter_errors())
    except RecursionError:
        return ["hundreds of schemas that each refer to the next: too deep for openapi-spec-validator."]
    return [f"{inner.json_path}: {inner.message}" for error in errors for inner in _deepest(error)]


def _require_valid(document: Document) -> None:
    require_openapi_3(document)
    if invalid := invalid_parts(document):
        listed = "\n".join(f"  {part}" for part in invalid)
        raise GeneratorError(
            f"is not a valid OpenAPI document:\n{listed}\nCorrect it with an overlay in overlays/openapi."
        )


def _deepest(error: Any) -> list[Any]:
    # The error of a whole `oneOf` only quotes its input; the errors of its branches are more useful.
    branches = [error]
    while any(branch.context for branch in branches):
        branches = [inner for branch in branches for inner in branch.context or [branch]]
    depth = max(len(branch.absolute_path) for branch in branches)
    return [branch for branch in branches if len(branch.absolute_path) == depth]


def _run_openapi_python_client(path: Path, content: Document, config: Path, output: Path) -> None:
    version = tool_versions()["openapi-python-client"]
    # -I: ignore the working directory, the home directory and PYTHON* variables. PATH and the missing RUFF_* variables
    # leave only the ruff beside this Python, with no settings.
    program = [sys.executable, "-I", "-X", "utf8", "-m", "openapi_python_client", "generate"]
    files = ["--path", str(path), "--config", str(config), "--output-path", str(output)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUFF_")}
    environment["PATH"] = str(Path(sys.executable).parent)
    process = subprocess.run(
        [*program, *files, "--meta=none", "--fail-on-warning"],
        check=False,
        env=environment,
        umask=0o022,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if process.returncode != 0:
        said = process.stderr.strip() or process.stdout.strip()
        if "File name too long" in said:
            raise GeneratorError(
                f"{_deepest_schema(content)}: nests so deeply that the name of its class, which joins the names around "
                "it, is too long for a file. Give it or an object around it a `title` with an overlay in "
                "overlays/openapi."
            )
        places = "".join(f"{place}\n" for place in _wrong_defaults(content))
        raise GeneratorError(
            f"openapi-python-client {version} failed with exit code {process.returncode}:\n{said}\n{places}"
            "Correct the document with an overlay in overlays/openapi; if a program is missing, run `make setup`."
        )


def _schemas(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the schemas of a document with their locations."""
    locations: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        location, node = waiting.pop()
        members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        locations[id(node)] = location
        waiting += ((f"{location}/{name}", member) for name, member in members)
    for kind, node in walk(document, "document"):
        if kind == "schema":
            yield locations[id(node)], node


def _wrong_defaults(document: Document) -> Iterator[str]:
    for location, schema in _schemas(document):
        if "default" in schema:
            checked = schema_validator(document, schema).evolve(format_checker=oas31_format_checker)
            for error in checked.iter_errors(schema["default"]):
                yield f"{location}/default: {error.message}"


def _deepest_schema(document: Document) -> str:
    return max((location for location, _ in _schemas(document)), key=lambda location: location.count("/"))


def _circular_parts(document: Document) -> list[str]:
    """Return the component schemas that are a part of themselves by `allOf`, with the components in between."""
    parts = {
        name: [
            member["$ref"].rpartition("/")[2]
            for member in (schema.get("allOf") or () if isinstance(schema, dict) else ())
            if isinstance(member, dict) and isinstance(member.get("$ref"), str)
        ]
        for name, schema in document.get("components", {}).get("schemas", {}).items()
    }
    found: list[str] = []
    known: set[str] = set()
    for start in parts:
        waiting, seen = [[start]], {start}
        while waiting and start not in known:
            way = waiting.pop()
            following = parts.get(way[-1], [])
            waiting += ([*way, name] for name in following if name not in seen)
            seen.update(following)
            if start in following:
                known.update(way)
                found.append(
                    f"/components/schemas/{start}: `allOf` contains the schema itself ({' → '.join([*way, start])}). "
                    "Remove one of these references."
                )
    return found


def _require_defined(document: Document, output: Path) -> None:
    """Check that generated modules use no undefined name, which openapi-python-client does not notice itself."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select=F821",
        "--output-format=json",
    ]
    process = subprocess.run([*command, str(output)], check=False, capture_output=True, encoding="utf-8")
    if process.returncode not in (0, 1):
        raise GeneratorError(f"ruff failed:\n{process.stderr.strip()}\nRun `make setup`.")
    for problem in json.loads(process.stdout):
        module = Path(problem["filename"]).resolve().relative_to(output.resolve())
        where, advice = str(module), "Correct the document with an overlay in overlays/openapi."
        for path, method, operation in _operations(document):
            if module.stem == operation_name(path, method, operation):
                where = f"{method.upper()} {path}"
                types = list(resolve(document, operation.get("requestBody")).get("content", {}))
                if len(types) > 1:
                    others = ", ".join(types[1:])
                    advice = f"Keep one type of body: remove {others} with an overlay in overlays/openapi."
        version = tool_versions()["openapi-python-client"]
        raise GeneratorError(
            f"{where}: openapi-python-client {version} makes code that cannot run ({problem['message']}). {advice}"
        )


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys() if path.startswith("/") else ():
            yield path, method, item[method]


def _escape_hidden(output: Path) -> None:
    # A text of the document must not show other code than what runs: https://trojansource.codes/
    for path in output.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if (escaped := escape_hidden(text)) != text:
            path.write_text(escaped, encoding="utf-8")


def _require_complete(document: Document, output: Path) -> None:
    # Names that differ only in case or in `_` become the same module: the second silently overwrites the first.
    operations = sum(1 for _ in _operations(document))
    _require_modules(output / "api", "*/*.py", operations, "operations", "operationId")
    classes = sum(
        len(ast.literal_eval(statement.value))
        for statement in ast.parse((output / "models/__init__.py").read_bytes()).body
        if isinstance(statement, ast.Assign)  # __all__
    )
    _require_modules(output / "models", "*.py", classes, "schemas", "title")


def _require_modules(folder: Path, pattern: str, expected: int, things: str, name: str) -> None:
    modules = sum(path.name != "__init__.py" for path in folder.glob(pattern))
    if modules != expected:
        raise GeneratorError(
            f"openapi-python-client made {modules} modules from {expected} {things}: some names are too similar. "
            f"Change the names (`{name}`) with an overlay in overlays/openapi."
        )

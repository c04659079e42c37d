"""Client for other groups of the document: same header, retries and errors, in a package with another name.

It combines the generated code of the groups with the rooms of the hand-written package that serve any operation.
"""

from __future__ import annotations

import ast
import json
import keyword
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generator.document import GeneratorError, blaming, read_document
from generator.paths import CONFIG, DOCUMENT, HAND_WRITTEN, OVERLAYS
from generator.pipeline.atomic_replace import replace_atomically, scratch_folder
from generator.pipeline.collisions import class_overrides, rename_collisions
from generator.pipeline.lock import hash_folder, sha256
from generator.pipeline.patch import overlays_for, patch
from generator.pipeline.pinned_document import document_module, require_pinned
from generator.pipeline.render import render
from generator.pipeline.select import REALTIME_TAG, select
from generator.pipeline.traits import read_traits

_ORIGINAL = HAND_WRITTEN.name
_ROOMS = ("_core", "_transports", "_client")
_MODULES = ("_version", "asgi", "django", "logs", "otel", "wsgi")
_GROUP = "_core/group.py"
_DEFAULTS = {"REALTIME": False, "DELIVERY": "at_most_once", "DEADLINE": 30.0, "ATTEMPT_TIMEOUT": 30.0}
"""Safe for any group: a SQL statement is not executed twice, and an LLM has time to respond."""
_DOCSTRING = """Client for {groups}. Made by `python -m generator client`, not edited by hand.

Defaults: a call ends after 30 s (`RetryPolicy(deadline=30.0)`), and a request that may have been carried out is not
repeated (`RetryPolicy(delivery="at_most_once")`) unless its method is idempotent (GET, HEAD, OPTIONS, PUT, DELETE).
Change either with `ForgeClient(retry=RetryPolicy(...))` or `client.with_options(retry=RetryPolicy(...))`.
"""
_REALTIME_DOCSTRING = """Client for {groups}. Made by `python -m generator client`, not edited by hand.

Defaults: a call ends after 5 s (`RetryPolicy(deadline=5.0)`), and a request that may have been carried out is repeated
(`RetryPolicy(delivery="at_least_once")`). Change either with `ForgeClient(retry=RetryPolicy(...))`.
"""
_LOCK = "client.lock"
"""Hashes of the package's files, in the package. A folder without it is never replaced; edited files are detected."""


def make_client(
    root: Path,
    tags: Sequence[str],
    package: str,
    destination: Path,
    *,
    force: bool = False,
    check_types: bool = False,
) -> Path:
    """Make a client for the operations with some tags.

    Args:
        root: The repository.
        tags: Tags of operations, spelled as in the document.
        package: The name of the new package.
        destination: The folder in which to make it.
        force: Replace a client that was edited by hand.
        check_types: Run `mypy --strict` and pyright on it, which takes several seconds.

    Returns:
        The folder of the package.

    Raises:
        GeneratorError: The name is invalid, the folder contains something else, or a step failed. Nothing was changed.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", package) or keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise GeneratorError(f"--package {package} is not a valid package name. Choose one like forge_kvs.")
    if package == _ORIGINAL:
        raise GeneratorError(f"--package {package} is the name of the Realtime client. Choose another one.")
    target = destination.resolve() / package
    if target.exists():
        _require_replaceable(target, force=force)
    require_pinned(root)
    with blaming(root / DOCUMENT):
        document = read_document(root / DOCUMENT)
        selected = select(document, tags)
    patched = patch(selected, overlays_for(tags, root / OVERLAYS))
    rename_collisions(patched)
    traits = read_traits(patched)
    destination.mkdir(parents=True, exist_ok=True)
    with scratch_folder(destination) as folder:
        made = folder / package
        made.mkdir()
        with blaming(root / DOCUMENT):
            config = folder / "config.yaml"
            config.write_text((root / CONFIG).read_text(encoding="utf-8") + class_overrides(), encoding="utf-8")
            render(patched, config, made / "_api")
        (made / "_document.py").write_text(document_module(document, sha256(root / DOCUMENT)), encoding="utf-8")
        _copy_rooms(root / HAND_WRITTEN, made)
        if set(tags) != {REALTIME_TAG}:
            (made / _GROUP).write_text(_group_module(root / HAND_WRITTEN, traits), encoding="utf-8")
        (made / "__init__.py").write_text(_init_module(root / HAND_WRITTEN, tags), encoding="utf-8")
        _require_importable(made)
        if check_types:
            require_typed(made)
        (made / _LOCK).write_text(json.dumps(hash_folder(made, Path()), indent=2) + "\n", encoding="utf-8")
        replace_atomically({made: target}, folder)
    return target


def _require_replaceable(target: Path, *, force: bool) -> None:
    try:
        locked = json.loads((target / _LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise GeneratorError(f"{target} was not made by this command. Choose another folder.") from None
    found = {name: digest for name, digest in hash_folder(target, Path()).items() if name != _LOCK}
    edited = sorted(name for name in locked.keys() | found.keys() if locked.get(name) != found.get(name))
    if edited and not force:
        listed = "\n".join(f"  {name}" for name in edited[:20])
        raise GeneratorError(
            f"{target} was edited by hand:\n{listed}\nMove your changes elsewhere, then discard them here with --force "
            "(make client FORCE=1)."
        )


def _copy_rooms(source: Path, made: Path) -> None:
    files = [source / f"{module}.py" for module in _MODULES]
    for room in _ROOMS:
        files += (source / room).rglob("*.py")
    for file in files:
        text = file.read_text(encoding="utf-8").replace(_ORIGINAL, made.name)
        # In examples: the copied rooms use neither.
        text = text.replace("RealtimeClient", "ForgeClient")
        # The emulator's command keeps its name.
        text = re.sub("forge-realtime(?! emulate)", made.name.replace("_", "-"), text)
        copy = made / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")
    (made / "py.typed").touch()


def _init_module(source: Path, tags: Sequence[str]) -> str:
    """Return an `__init__` that exports what the original exports from the copied rooms, and the two clients."""
    imports = ["from ._client.async_forge import AsyncForgeClient", "from ._client.forge import ForgeClient"]
    names = ["AsyncForgeClient", "ForgeClient"]
    for statement in ast.walk(ast.parse((source / "__init__.py").read_bytes())):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(
            ("_core.", "_document", "_version")
        ):
            imports.append(ast.unparse(statement))
            names += [alias.asname or alias.name for alias in statement.names]
    text = _REALTIME_DOCSTRING if set(tags) == {REALTIME_TAG} else _DOCSTRING
    # A tag is data of the document: it must not end the docstring.
    groups = ", ".join(json.dumps(tag)[1:-1].replace('"', "'") for tag in tags)
    docstring = f'"""{text.format(groups=groups)}"""'
    exported = "".join(f'    "{name}",\n' for name in sorted(names))
    return "\n".join([docstring, "", *imports, "", f"__all__ = [\n{exported}]\n"])


def require_typed(*packages: Path) -> None:
    """Run `mypy --strict` and pyright on packages of one folder, side by side.

    Raises:
        GeneratorError: One of them reports an error.
    """
    names = [package.name for package in packages]
    with tempfile.TemporaryDirectory(prefix="types-") as folder:
        # Neither reads settings of the machine, nor a cache that another run left.
        (Path(folder) / "pyrightconfig.json").write_text("{}", encoding="utf-8")
        (Path(folder) / "mypy.ini").write_text("[mypy]\n", encoding="utf-8")
        for package in packages:
            (Path(folder) / package.name).symlink_to(package.resolve(), target_is_directory=True)
        program = [sys.executable, "-m"]
        settings = ["--strict", "--config-file=mypy.ini", f"--cache-dir={os.devnull}", "--no-error-summary"]
        commands = {
            "mypy --strict": [*program, "mypy", *settings, *names],
            "pyright": [*program, "pyright", "--pythonpath", sys.executable, *names],
        }
        running = {
            name: subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
            )
            for name, command in commands.items()
        }
        outputs = {name: process.communicate()[0].strip() for name, process in running.items()}
        for name, process in running.items():
            if process.returncode != 0:
                raise GeneratorError(
                    f"the new package does not pass {name}:\n{outputs[name]}\nDescribe that part of the document in "
                    "another way with an overlay in overlays/openapi; if a program is missing, run `make setup`."
                )


def _group_module(source: Path, traits: dict[str, dict[str, Any]]) -> str:
    """Return the original's `_core/group.py` with the values of other groups."""
    values = {**{name: _literal(value) for name, value in _DEFAULTS.items()}, "TRAITS": "{}"}
    if traits:
        rows = "".join(f"    {_literal(key)}: Traits({_arguments(found)}),\n" for key, found in traits.items())
        values["TRAITS"] = f"{{\n{rows}}}"
    lines = []
    for line in (source / _GROUP).read_text(encoding="utf-8").splitlines(keepends=True):
        start, equals, _ = line.partition(" = ")
        name = start.partition(":")[0]
        lines.append(f"{start}{equals}{values[name]}\n" if name in values else line)
    return "".join(lines)


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_literal(value)}" for name, value in values.items())


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _require_importable(made: Path) -> None:
    program = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1]); "
        "package = importlib.import_module(sys.argv[2]); "
        "modules = pkgutil.walk_packages(package.__path__, package.__name__ + '.'); "
        "[importlib.import_module(module.name) for module in modules]"
    )
    process = subprocess.run(
        [sys.executable, "-I", "-B", "-c", program, str(made.parent), made.name],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode != 0:
        raise GeneratorError(f"the new package cannot be imported:\n{process.stderr.strip()}")

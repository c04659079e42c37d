"""Client for other groups of the document: same header, retries and errors, in a package with another name.

It combines the generated code of the groups with the rooms of the hand-written package that serve any operation.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from generator.document import GeneratorError, blaming, read_document
from generator.paths import CONFIG, DOCUMENT, HAND_WRITTEN, OVERLAYS
from generator.pipeline.atomic_replace import replace_atomically
from generator.pipeline.lock import hash_folder, sha256
from generator.pipeline.patch import overlays_for, patch
from generator.pipeline.pinned_document import document_module, require_pinned
from generator.pipeline.render import render
from generator.pipeline.select import select

_ORIGINAL = HAND_WRITTEN.name
_ROOMS = ("_core", "_transports", "_client")
_MODULES = ("_version", "asgi", "logs", "otel", "wsgi")
_LOCK = "client.lock"
"""Hashes of the package's files, in the package. A folder without it is never replaced; edited files are detected."""


def make_client(root: Path, tags: Sequence[str], package: str, destination: Path, *, force: bool = False) -> Path:
    """Make a client for the operations with some tags.

    Args:
        root: The repository.
        tags: Tags of operations, spelled as in the document.
        package: The name of the new package.
        destination: The folder in which to make it.
        force: Replace a client that was edited by hand.

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
    patched = patch(selected, overlays_for(tags, root / OVERLAYS), allow_missing=True)
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=".generate-") as folder:
        made = Path(folder) / package
        made.mkdir()
        with blaming(root / DOCUMENT):
            render(patched, root / CONFIG, made / "_api")
        (made / "_document.py").write_text(document_module(document, sha256(root / DOCUMENT)), encoding="utf-8")
        _copy_rooms(root / HAND_WRITTEN, made)
        (made / "__init__.py").write_text(_init_module(root / HAND_WRITTEN, tags), encoding="utf-8")
        _require_importable(made)
        (made / _LOCK).write_text(json.dumps(hash_folder(made, Path()), indent=2) + "\n", encoding="utf-8")
        replace_atomically({made: target}, Path(folder))
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
    docstring = f'"""Client for {", ".join(tags)}. Made by `python -m generator client`, not edited by hand."""'
    exported = "".join(f'    "{name}",\n' for name in sorted(names))
    return "\n".join([docstring, "", *imports, "", f"__all__ = [\n{exported}]\n"])


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

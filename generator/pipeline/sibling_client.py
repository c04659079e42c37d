"""A client for other groups of the document, with the same header, retries and errors, in a package of another name.

It is the generated code of the groups, and of the hand-written package what the client for any operation needs.
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
from generator.pipeline.atomic_replace import put_in_place
from generator.pipeline.lock import CONFIG, DOCUMENT, HAND_WRITTEN, OVERLAYS, hash_folder, sha256
from generator.pipeline.patch import overlays_for, patch
from generator.pipeline.regenerate import document_module, require_pinned
from generator.pipeline.render import render
from generator.pipeline.select import select

_ORIGINAL = "forge_realtime"
_ROOMS = ("_core", "_transports", "_client")
_MODULES = ("_version", "asgi", "logs", "wsgi")
_LOCK = "client.lock"
"""The hashes of what was made, in the package: what tells it from anything else, and edits by hand from none."""


def make_client(root: Path, tags: Sequence[str], package: str, destination: Path, force: bool = False) -> Path:
    """Makes a client for the operations of some tags.

    Args:
        root: The repository.
        tags: Tags of operations, as the document writes them.
        package: The name of the package to make.
        destination: The folder to make it in.
        force: Replace also a client that was edited by hand.

    Returns:
        The package's folder.

    Raises:
        GeneratorError: The name is none, something else is there, or a step failed; nothing was changed.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", package) or keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise GeneratorError(f"--package {package} is no name for a package: take one such as forge_kvs.")
    if package == _ORIGINAL:
        raise GeneratorError(f"--package {package} is the name of the client for Realtime: take another one.")
    place = destination.resolve() / package
    if place.exists():
        _require_untouched(place, force)
    require_pinned(root)
    with blaming(root / DOCUMENT):
        document = read_document(root / DOCUMENT)
        selected = select(document, tags)
    patched = patch(selected, overlays_for(tags, root / OVERLAYS), remove_what_is_there=True)
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=".generate-") as folder:
        made = Path(folder) / package
        made.mkdir()
        with blaming(root / DOCUMENT):
            render(patched, root / CONFIG, made / "_api")
        (made / "_document.py").write_text(document_module(document, sha256(root / DOCUMENT)), encoding="utf-8")
        _lay(root / HAND_WRITTEN / _ORIGINAL, made, tags)
        _require_importable(made)
        (made / _LOCK).write_text(json.dumps(hash_folder(made, Path()), indent=2) + "\n", encoding="utf-8")
        put_in_place({made: place}, Path(folder))
    return place


def _require_untouched(place: Path, force: bool) -> None:
    try:
        locked = json.loads(_text(place / _LOCK))
    except ValueError:
        raise GeneratorError(
            f"{place} holds something else than a client made by this command. Choose another place."
        ) from None
    found = {name: digest for name, digest in hash_folder(place, Path()).items() if name != _LOCK}
    edited = sorted(name for name in locked.keys() | found.keys() if locked.get(name) != found.get(name))
    if edited and not force:
        listed = "\n".join(f"  {name}" for name in edited[:20])
        raise GeneratorError(
            f"{place} was edited by hand:\n{listed}\nKeep what you need of that elsewhere; --force (make client FORCE=1) discards it."
        )


def _lay(source: Path, made: Path, tags: Sequence[str]) -> None:
    parts = [source / f"{module}.py" for module in _MODULES]
    for room in _ROOMS:
        parts += (source / room).rglob("*.py")
    for part in parts:
        text = _text(part).replace(_ORIGINAL, made.name)
        # The emulator keeps its command.
        text = re.sub("forge-realtime(?! emulate)", made.name.replace("_", "-"), text)
        copy = made / part.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")
    (made / "py.typed").touch()

    lines = [f'"""A client for {", ".join(tags)}. Made by `python -m generator client`; not edited by hand."""', ""]
    names: list[str] = ["AsyncForgeClient", "ForgeClient"]
    lines += ["from ._client.async_forge import AsyncForgeClient", "from ._client.forge import ForgeClient"]
    for statement in ast.walk(ast.parse(_text(source / "__init__.py"))):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(
            ("_core.", "_document", "_version")
        ):
            lines.append(ast.unparse(statement))
            names += [alias.asname or alias.name for alias in statement.names]
    listed = "".join(f'    "{name}",\n' for name in sorted(names))
    (made / "__init__.py").write_text("\n".join([*lines, "", f"__all__ = [\n{listed}]\n"]), encoding="utf-8")


def _require_importable(made: Path) -> None:
    program = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1]); package = importlib.import_module(sys.argv[2]); "
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]"
    )
    process = subprocess.run(
        [sys.executable, "-I", "-B", "-c", program, str(made.parent), made.name],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode != 0:
        raise GeneratorError(f"The package that was made cannot be imported:\n{process.stderr.strip()}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""

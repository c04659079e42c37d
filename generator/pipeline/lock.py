"""Step 5: what made what, as hashes. And where in the repository everything is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from generator.document import GeneratorError
from generator.pipeline.patch import overlay_files
from generator.pipeline.render import tool_versions

DOCUMENT = Path("spec/forge-containers-api.json")
SOURCE = Path("spec/source.toml")
OVERLAYS = Path("overlays/openapi")
CONFIG = Path("generator/openapi-python-client.yaml")
HAND_WRITTEN = Path("overlays")
# Their modules decide what is made.
_DECIDING = (Path("generator"), Path("generator/pipeline"))

DERIVED = Path("spec/realtime.json")
GENERATED = Path("generated")
PACKAGE = GENERATED / "forge_realtime/_api"
DOCUMENT_MODULE = GENERATED / "forge_realtime/_document.py"
LOCK = Path("generated.lock")


def lock_text(root: Path, made: Path) -> str:
    """The text of `generated.lock`.

    Args:
        root: The repository, whose document, overlays and generator are locked.
        made: The repository, or a scratch folder laid out like it, holding the derived document and the code.

    Raises:
        GeneratorError: One of the files, or one of the programs, is missing.
    """
    lock = {
        "document": _hashes(root, [root / DOCUMENT]),
        "overlays": _hashes(root, overlay_files(root / OVERLAYS)),
        "generator": _hashes(
            root, [root / CONFIG, *(path for folder in _DECIDING for path in (root / folder).glob("*.py"))]
        ),
        "programs": tool_versions(),
        "derived": _hashes(made, [made / DERIVED]),
        "generated": hash_folder(made, GENERATED),
    }
    return json.dumps(lock, indent=2) + "\n"


def is_as_locked(root: Path) -> bool:
    """Whether all that goes in and all that came out is what `generated.lock` says."""
    try:
        return (root / LOCK).read_text(encoding="utf-8") == lock_text(root, root)
    except (OSError, GeneratorError):
        return False


def hash_folder(base: Path, folder: Path) -> dict[str, str]:
    """SHA-256 of each file under `base / folder` by its path from `base`, sorted; `__pycache__` is left out."""
    return _hashes(
        base, [path for path in (base / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GeneratorError(
            f"{path}: cannot be read: {error.strerror}. Restore it; if it is a generated file, run `make generate`."
        ) from error


def _hashes(base: Path, paths: list[Path]) -> dict[str, str]:
    return {name: sha256(base / name) for name in sorted(path.relative_to(base).as_posix() for path in paths)}

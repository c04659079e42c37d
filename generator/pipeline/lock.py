"""Step 5: hashes of what went into the client and of what came out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from generator.document import GeneratorError
from generator.paths import CONFIG, DERIVED, DOCUMENT, GENERATED, LOCK, OVERLAYS
from generator.pipeline.patch import overlay_files
from generator.pipeline.render import tool_versions

# These modules can change the output. The other rooms cannot, because no step imports them.
_CODE = (Path("generator"), Path("generator/pipeline"))


def lock_text(root: Path, made: Path) -> str:
    """Return the text of `generated.lock`.

    Args:
        root: The repository, for the document, the overlays and the generator.
        made: The repository, or a scratch folder with the same layout, for the derived document and the generated code.

    Raises:
        GeneratorError: A file or a program is missing.
    """
    code = [path for folder in _CODE for path in (root / folder).glob("*.py")]
    lock = {
        "document": _hashes(root, [root / DOCUMENT]),
        "overlays": _hashes(root, overlay_files(root / OVERLAYS)),
        "generator": _hashes(root, [root / CONFIG, *code]),
        "programs": tool_versions(),
        "derived": _hashes(made, [made / DERIVED]),
        "generated": hash_folder(made, GENERATED),
    }
    return json.dumps(lock, indent=2) + "\n"


def is_as_locked(root: Path) -> bool:
    """Return whether all inputs and outputs have the hashes in `generated.lock`."""
    try:
        return (root / LOCK).read_text(encoding="utf-8") == lock_text(root, root)
    except (OSError, GeneratorError):
        return False


def hash_folder(base: Path, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below `base / folder`, without `__pycache__`.

    Returns:
        Hexadecimal digests by path relative to `base`, sorted.
    """
    return _hashes(
        base, [path for path in (base / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        GeneratorError: The file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GeneratorError(
            f"{path}: cannot be read: {error.strerror}. Restore it; if it is a generated file, run `make generate`."
        ) from error
    return hashlib.sha256(content).hexdigest()


def _hashes(base: Path, paths: list[Path]) -> dict[str, str]:
    return {name: sha256(base / name) for name in sorted(path.relative_to(base).as_posix() for path in paths)}

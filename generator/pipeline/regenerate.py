"""All steps together: from the pinned document to the committed outputs, all of them or none."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from generator.document import Document, GeneratorError, blaming, canonical_json, read_document
from generator.pipeline.atomic_replace import put_in_place
from generator.pipeline.lock import (
    CONFIG,
    DERIVED,
    DOCUMENT,
    DOCUMENT_MODULE,
    GENERATED,
    HAND_WRITTEN,
    LOCK,
    OVERLAYS,
    PACKAGE,
    SOURCE,
    hash_folder,
    is_as_locked,
    lock_text,
    sha256,
)
from generator.pipeline.overlay_fit import require_fit
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.render import render
from generator.pipeline.select import REALTIME_TAG, select


def generate(root: Path) -> None:
    """Makes the derived document, the generated code and the lock, and prints what changed.

    Outputs that come out as they are already are not touched, and nothing is made where everything is as locked.

    Raises:
        GeneratorError: A step failed; no output was changed.
    """
    require_pinned(root)
    if is_as_locked(root):
        print(f"nothing changed: everything is as {LOCK} says")
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".generate-") as folder:
        scratch = Path(folder)
        _make(root, scratch)
        new, old = _outputs(scratch), _outputs(root)
        changed = _different(old, new)
        tops = [top for top in (DERIVED, GENERATED, LOCK) if any(Path(name).is_relative_to(top) for name in changed)]
        put_in_place({scratch / top: root / top for top in tops}, scratch)
    for name in changed:
        print(f"{'added' if name not in old else 'removed' if name not in new else 'changed'}: {name}")
    if not changed:
        print("nothing changed")


def check(root: Path) -> None:
    """Makes everything anew in a scratch folder and compares it with what is there.

    Raises:
        GeneratorError: A step failed, or a file differs, is missing or is extra; names each.
    """
    with tempfile.TemporaryDirectory(prefix="generate-") as folder:
        _make(root, Path(folder))
        expected, found = _outputs(Path(folder)), _outputs(root)
    wrong = [
        f"  {name}: {'is extra' if name not in expected else 'is missing' if name not in found else 'differs'}"
        for name in _different(expected, found)
    ]
    if wrong:
        remedy = "Run `make generate`"
        if is_as_locked(root):
            remedy = f"{LOCK} was edited by hand and says what is there: remove it, run `make generate`"
        listed = "\n".join(wrong)
        raise GeneratorError(
            f"What is committed is not what the document, the overlays and the generator make:\n{listed}\n"
            f"{remedy}, and commit what it changes."
        )
    print("everything is as generated")


def read_source(root: Path) -> dict[str, Any]:
    """What spec/source.toml says of the pinned document.

    Raises:
        GeneratorError: The file is missing or is not TOML.
    """
    try:
        return tomllib.loads((root / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GeneratorError(f"{root / SOURCE}: cannot be read as TOML: {error}. Restore it.") from error


def _make(root: Path, scratch: Path) -> None:
    require_pinned(root)
    print(f"pin: {DOCUMENT} is the document that {SOURCE} names")
    document = read_document(root / DOCUMENT)
    with blaming(root / DOCUMENT):
        selected = select(document)
    print(f"select: {len(selected['paths'])} of {len(document['paths'])} paths, tagged {REALTIME_TAG!r}")
    overlays = overlay_files(root / OVERLAYS)
    patched = patch(selected, overlays)
    print(f"patch: {', '.join(path.name for path in overlays)}")
    (scratch / DERIVED).parent.mkdir()
    (scratch / DERIVED).write_text(canonical_json(patched), encoding="utf-8")
    (scratch / DERIVED).chmod(0o644)
    (scratch / PACKAGE).parent.mkdir(parents=True)
    with blaming(root / DERIVED):
        render(patched, root / CONFIG, scratch / PACKAGE)
    (scratch / DOCUMENT_MODULE).write_text(document_module(document, sha256(root / DOCUMENT)), encoding="utf-8")
    (scratch / DOCUMENT_MODULE).chmod(0o644)
    print(f"render: {len(hash_folder(scratch, GENERATED))} files")
    lacking = require_fit(patched, scratch / GENERATED, root / HAND_WRITTEN, "forge_realtime")
    print(
        f"fit: notice: the document has no property for {', '.join(lacking)}"
        if lacking
        else "fit: every argument has its property"
    )
    (scratch / LOCK).write_text(lock_text(root, scratch), encoding="utf-8")
    (scratch / LOCK).chmod(0o644)
    print(f"lock: {LOCK}")


def document_module(document: Document, pinned: str) -> str:
    """The text of the module that tells the package which document it was generated from."""
    return f'''"""The API document that this package was generated from. Machine-written, never edited."""

from typing import Final, NamedTuple


class ApiDocument(NamedTuple):
    """An API document.

    Attributes:
        sha256: Its SHA-256, in hexadecimal: that of `spec/forge-containers-api.json`.
        version: Its `info.version`.
    """

    sha256: str
    version: str


DOCUMENT: Final = ApiDocument(
    sha256="{pinned}",
    version={json.dumps(str(document["info"]["version"]))},
)
'''


def require_pinned(root: Path) -> None:
    """Raises `GeneratorError` where the document is not the one that its source names."""
    stated = read_source(root).get("sha256")
    if stated != (actual := sha256(root / DOCUMENT)):
        raise GeneratorError(
            f"{root / DOCUMENT}: its SHA-256 is {actual}, but {SOURCE} says {stated}. If the document was changed on "
            f"purpose, write the new hash and the reason into {SOURCE}; otherwise restore the document."
        )


def _outputs(base: Path) -> dict[str, str]:
    files = {path.as_posix(): sha256(base / path) for path in (DERIVED, LOCK) if (base / path).is_file()}
    return files | hash_folder(base, GENERATED)


def _different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]

"""All steps: from the pinned document to the committed outputs, all of them or none."""

from __future__ import annotations

import tempfile
from pathlib import Path

from generator.document import GeneratorError, blaming, canonical_json, read_document
from generator.paths import (
    API,
    CONFIG,
    DERIVED,
    DOCUMENT,
    DOCUMENT_MODULE,
    GENERATED,
    HAND_WRITTEN,
    LOCK,
    OVERLAYS,
    SOURCE,
)
from generator.pipeline.atomic_replace import replace_atomically, scratch_folder
from generator.pipeline.lock import hash_folder, is_as_locked, lock_text, sha256
from generator.pipeline.overlay_fit import check_overlay_fit
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.pinned_document import document_module, require_pinned
from generator.pipeline.render import render
from generator.pipeline.select import REALTIME_TAG, select
from generator.text import say


def generate(root: Path) -> None:
    """Make the derived document, the generated code and the lock, and print what changed.

    Does nothing if everything is as locked. Never touches an output that would stay the same.

    Raises:
        GeneratorError: A step failed. No output was changed.
    """
    require_pinned(root)
    if is_as_locked(root):
        say(f"nothing changed: everything is as {LOCK} says")
        return
    with scratch_folder(root) as scratch:
        _make(root, scratch)
        new, old = _outputs(scratch), _outputs(root)
        changed = _different(old, new)
        tops = [top for top in (DERIVED, GENERATED, LOCK) if any(Path(name).is_relative_to(top) for name in changed)]
        replace_atomically({scratch / top: root / top for top in tops}, scratch)
    for name in changed:
        say(f"{'added' if name not in old else 'removed' if name not in new else 'changed'}: {name}")
    if not changed:
        say("nothing changed")


def check(root: Path) -> None:
    """Make everything in a scratch folder and compare it with the repository.

    Raises:
        GeneratorError: A step failed, or files differ, are missing or are extra. Names each.
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
            remedy = f"{LOCK} was edited to match these files: remove it, run `make generate`"
        listed = "\n".join(wrong)
        raise GeneratorError(
            f"the repository is not what the document, the overlays and the generator make:\n{listed}\n"
            f"{remedy}, and commit the changes."
        )
    say("everything is as generated")


def _make(root: Path, scratch: Path) -> None:
    require_pinned(root)
    say(f"pin: {DOCUMENT} has the hash recorded in {SOURCE}")
    document = read_document(root / DOCUMENT)
    with blaming(root / DOCUMENT):
        selected = select(document)
    say(f"select: {len(selected['paths'])} of {len(document['paths'])} paths, tagged {REALTIME_TAG!r}")
    overlays = overlay_files(root / OVERLAYS)
    patched = patch(selected, overlays)
    say(f"patch: {', '.join(path.name for path in overlays)}")
    (scratch / DERIVED).parent.mkdir()
    (scratch / DERIVED).write_text(canonical_json(patched), encoding="utf-8")
    (scratch / DERIVED).chmod(0o644)
    (scratch / API).parent.mkdir(parents=True)
    with blaming(root / DERIVED):
        render(patched, root / CONFIG, scratch / API)
    (scratch / DOCUMENT_MODULE).write_text(document_module(document, sha256(root / DOCUMENT)), encoding="utf-8")
    (scratch / DOCUMENT_MODULE).chmod(0o644)
    say(f"render: {len(hash_folder(scratch, GENERATED))} files")
    unsupported = check_overlay_fit(patched, (scratch / API).parent, root / HAND_WRITTEN)
    say(
        f"fit: notice: the document has no property for {', '.join(unsupported)}"
        if unsupported
        else "fit: the document has a property for every argument"
    )
    (scratch / LOCK).write_text(lock_text(root, scratch), encoding="utf-8")
    (scratch / LOCK).chmod(0o644)
    say(f"lock: {LOCK}")


def _outputs(base: Path) -> dict[str, str]:
    files = {path.as_posix(): sha256(base / path) for path in (DERIVED, LOCK) if (base / path).is_file()}
    return files | hash_folder(base, GENERATED)


def _different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]

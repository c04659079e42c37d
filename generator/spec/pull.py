"""Step 0: fetch the published document, check it, and pin it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generator.document import Document, GeneratorError, blaming, canonical_json, parse_document, read_document
from generator.paths import DOCUMENT, OVERLAYS, SOURCE
from generator.pipeline.atomic_replace import replace_atomically, scratch_folder
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.pinned_document import read_source
from generator.pipeline.render import invalid_parts
from generator.pipeline.select import REALTIME_TAG, select
from generator.references import METHODS
from generator.spec.fetch import ELSEWHERE, LIMIT, Fetched, fetch
from generator.spec.reference_page import document_address, is_html
from generator.spec.source import source_text
from generator.text import say

# The beginning of a target in an overlay, which names the operation.
_USED_OPERATION = re.compile(r"\$\.paths\['([^']+)'\]\.(\w+)")
# Some servers send JSON and YAML as text or bytes.
_MEDIA_TYPE = re.compile(r"|text/plain|(application|binary)/octet-stream|.*(json|yaml|openapi).*")


@dataclass(frozen=True)
class _Published:
    content: bytes
    name: str  # for messages
    origin: dict[str, str | None]


def pull(root: Path, source: str | None = None, *, force: bool = False) -> None:
    """Pin the published document, and print what was pinned or that nothing changed.

    Args:
        root: The repository.
        source: Address of the reference page or the document, or a file. Default: the page in spec/source.toml.
        force: Pin a document even if its Realtime part is invalid or lacks an operation that the overlays use.

    Raises:
        GeneratorError: The document cannot be fetched or must not be pinned. Nothing was changed.
    """
    known = read_source(root)
    pinned = (root / DOCUMENT).read_bytes() if (root / DOCUMENT).is_file() else b""
    intact = hashlib.sha256(pinned).hexdigest() == known.get("sha256")
    now = datetime.now(UTC).replace(microsecond=0)

    published = _fetch_published(known, source, intact=intact)
    if published is None:
        say(f"nothing changed: {known['address']} is as recorded in {SOURCE} (304 at {now.isoformat()})")
        return
    with blaming(published.name):
        document = parse_document(published.content)
        content = canonical_json(document).encode()
        # Replace the record of a file by that of an address.
        better = "file" not in published.origin and not _is_address(str(known.get("address")))
        if content == pinned and intact and not better:
            say(f"nothing changed: {published.name} is the same as {DOCUMENT} (at {now.isoformat()})")
            return
        report = _check_document(document, root, force=force)

    record = source_text(
        {
            "document": DOCUMENT.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "published_sha256": hashlib.sha256(published.content).hexdigest(),
            **published.origin,
            "obtained": now,
            "version": str(document["info"]["version"]) if _has_version(document) else None,
        }
    )
    _pin(root, content, record.encode())
    say(f"pulled: {published.name} as {DOCUMENT}")
    for line in report:
        say(line)
    say("next: `make diff` shows what changed for users of the client, `make generate` makes the client")


def _fetch_published(known: dict[str, Any], source: str | None, *, intact: bool) -> _Published | None:
    source = source or known.get("page")
    if not isinstance(source, str):
        raise GeneratorError(f"{SOURCE} names no page. {ELSEWHERE}")
    if not _is_address(source):
        return _from_file(Path(source), known.get("page"))

    def fetch_changed(address: str) -> Fetched | None:
        same = intact and address == known.get("address")
        return fetch(address, known.get("etag"), known.get("last_modified")) if same else fetch(address)

    page, address = known.get("page"), source
    if (fetched := fetch_changed(address)) and is_html(fetched.content, fetched.media_type):
        page, address = source, document_address(source, fetched.content)
        fetched = fetch_changed(address)
    if fetched is None:
        return None
    if is_html(fetched.content, fetched.media_type):
        raise GeneratorError(f"{address}: is a web page, expected a document. {ELSEWHERE}")
    if not _MEDIA_TYPE.fullmatch(fetched.media_type):
        raise GeneratorError(f"{address}: is served as {fetched.media_type!r}, expected JSON or YAML. {ELSEWHERE}")
    origin = {"page": page, "address": address, "etag": fetched.etag, "last_modified": fetched.last_modified}
    return _Published(fetched.content, address, origin)


def _is_address(source: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def _from_file(path: Path, page: str | None) -> _Published:
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise GeneratorError(
            f"{path}: cannot be read: {error.strerror}. Check the path. An address begins with https://."
        ) from error
    if len(content) > LIMIT:
        raise GeneratorError(f"{path}: is larger than {LIMIT} bytes. Is it the right file?")
    # Without its folder, which means nothing on another machine.
    return _Published(content, str(path), {"page": page, "address": "unknown", "file": path.name})


def _check_document(document: Document, root: Path, *, force: bool) -> list[str]:
    selected = select(document)
    operations = _operations(selected)
    overlays = overlay_files(root / OVERLAYS)
    report = [f"  {len(operations)} of {len(_operations(document))} operations are tagged {REALTIME_TAG!r}"]

    problems = []
    if missing := [operation for operation in _used_operations(overlays) if operation not in operations]:
        problems.append(
            f"has no {' and no '.join(missing)}, which {OVERLAYS} uses. Operations tagged {REALTIME_TAG!r}: "
            f"{', '.join(operations)}. An old revision may be served for a while: retry later."
        )
    invalid = invalid_parts(document)
    if invalid and (invalid_here := invalid_parts(selected)):
        listed = "\n".join(f"  {part}" for part in invalid_here)
        problems.append(f"is not a valid OpenAPI document:\n{listed}")
    elif invalid:
        report.append(
            f"notice: it has {len(invalid)} OpenAPI errors, none of them in the part for {REALTIME_TAG!r}. "
            f"The first: {invalid[0]}"
        )
    if problems and not force:
        listed = "\n".join(problems)
        raise GeneratorError(
            f"{listed}\nTo pin it anyway and adapt {OVERLAYS}: make pull FORCE=1, with the same SOURCE."
        )
    report += [f"notice: {problem}" for problem in problems]
    if not problems:
        try:
            patch(selected, overlays)
        except GeneratorError as error:
            report.append(f"notice: `make generate` will fail until this overlay fits the document: {error}")
    return report


def _operations(document: Document) -> list[str]:
    return [
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        if path.startswith("/")
        for method in item
        if method in METHODS
    ]


def _used_operations(overlays: list[Path]) -> list[str]:
    # Ignore malformed overlays here. Applying them reports the error.
    actions = [action for path in overlays for action in read_document(path).get("actions") or ()]
    targets = [str(action.get("target")) for action in actions if isinstance(action, dict)]
    used = [match for target in targets if (match := _USED_OPERATION.match(target))]
    return list(dict.fromkeys(f"{match[2].upper()} {match[1]}" for match in used))


def _has_version(document: Document) -> bool:
    info = document.get("info")
    return isinstance(info, dict) and "version" in info


def _pin(root: Path, content: bytes, record: bytes) -> None:
    with scratch_folder(root) as scratch:
        made = {scratch / DOCUMENT.name: root / DOCUMENT, scratch / SOURCE.name: root / SOURCE}
        for path, new in zip(made, (content, record), strict=True):
            path.write_bytes(new)
            path.chmod(0o644)
        replace_atomically(made, scratch)

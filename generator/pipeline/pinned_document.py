"""The pinned document: its record in spec/source.toml, and its description in the package."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from generator.document import Document, GeneratorError
from generator.paths import DOCUMENT, SOURCE
from generator.pipeline.lock import sha256
from generator.text import escape_hidden


def read_source(root: Path) -> dict[str, Any]:
    """Read spec/source.toml.

    Raises:
        GeneratorError: The file is missing or is not TOML.
    """
    try:
        return tomllib.loads((root / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GeneratorError(f"{root / SOURCE}: cannot be read as TOML: {error}. Restore it.") from error


def require_pinned(root: Path) -> None:
    """Check that the document has the hash recorded in spec/source.toml.

    Raises:
        GeneratorError: The hashes differ, or a file is missing.
    """
    recorded = read_source(root).get("sha256")
    if recorded != (actual := sha256(root / DOCUMENT)):
        raise GeneratorError(
            f"{root / DOCUMENT}: its SHA-256 is {actual}, but {SOURCE} records {recorded}. Restore the document. If "
            f"you changed it on purpose, write the new hash and the reason into {SOURCE}."
        )


def document_module(document: Document, digest: str) -> str:
    """Return the source of the package's `_document` module.

    Args:
        document: The whole pinned document.
        digest: Its SHA-256, in hexadecimal.
    """
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
    sha256="{digest}",
    version={escape_hidden(json.dumps(str(document["info"]["version"]), ensure_ascii=False))},
)
'''

"""The API document that this package was generated from. Machine-written, never edited."""

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
    sha256="9d79c914e945d1aa29e9f58d8d693809306b2f9d424b0548f29649b8c0151397",
    version="unknown",
)

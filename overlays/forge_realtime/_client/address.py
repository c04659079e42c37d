"""The address of the egress sidecar."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .._core.errors import UsageError
from .._core.http import httpx

VARIABLE: Final = "FORGE_EGRESS_PROXY_URL"


@lru_cache(maxsize=16)
def checked_address(source: str, text: str) -> str:
    """Check the address of the sidecar and remove a slash at its end.

    Args:
        source: Where the address comes from, for the error message.
        text: The address.

    Raises:
        UsageError: It is no http(s) address.
    """
    if not text:
        raise UsageError(
            f"{source} is not set. The platform sets {VARIABLE} in the container; elsewhere, start "
            "`forge-realtime emulate` and export the address that it prints, or pass base_url."
        )
    try:
        url = httpx.URL(text)
        labels = url.host.removesuffix(".").split(".")
        if not url.host.isascii() or any(not 0 < len(label) < 64 for label in labels):
            # As connecting does. Not always, because the codec is slow to load.
            url.host.encode("idna")
    except (httpx.InvalidURL, TypeError, UnicodeError):
        url = httpx.URL()
    # An empty query or fragment would swallow the path of the operation.
    unusable = url.userinfo or "?" in text or "#" in text or not 0 <= (url.port or 0) <= 65_535
    if url.scheme not in ("http", "https") or not url.host or unusable:
        raise UsageError(
            f"{source} must be an http:// or https:// address without user, query or fragment (no '@', '?' or '#'), "
            "such as http://localhost:7072."
        )
    return str(url).rstrip("/")

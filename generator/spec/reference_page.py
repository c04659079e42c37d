"""The reference page, and the address of the document on it."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

from generator.document import GeneratorError
from generator.spec.fetch import ELSEWHERE

LINK = "OpenAPI"
# Readers do not see the text in these.
_UNSEEN = frozenset({"script", "style", "svg", "template"})


def is_html(content: bytes, media_type: str = "") -> bool:
    """Return whether content is a web page, by its media type or its first character."""
    return media_type in {"text/html", "application/xhtml+xml"} or content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(
        b"<"
    )


def document_address(page: str, content: bytes) -> str:
    """Return the address of the link with the text `LINK`.

    Args:
        page: The address of the page. Relative links are resolved against it.
        content: The page.

    Raises:
        GeneratorError: There is no such link, or there are several with different addresses.
    """
    links = _Links()
    try:
        links.feed(content.decode("utf-8", "replace"))
        links.close()
        base = urljoin(page, links.base)
        found = list(dict.fromkeys(urljoin(base, address.strip()) for address in links.found))
    # Python 3.11 raises AssertionError for some malformed declarations.
    except (AssertionError, ValueError) as error:
        raise GeneratorError(f"{page}: cannot be read as a web page: {error}. {ELSEWHERE}") from error
    if not found:
        raise GeneratorError(
            f"{page}: has no link with the text {LINK!r}. The page changed, or is another one. {ELSEWHERE}"
        )
    if len(found) > 1:
        listed = "\n".join(f"  {address}" for address in found)
        raise GeneratorError(f"{page}: has links with the text {LINK!r} to different addresses:\n{listed}\n{ELSEWHERE}")
    return found[0]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[str] = []
        self._address: str | None = None
        self._text: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href")
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "base":
            self.base = self.base or address or ""
        elif tag == "a":
            self._end_link()  # Links do not nest: like a browser, end the open one.
            self._address, self._text = address, []

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "a":
            self._end_link()

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end_link()

    def _end_link(self) -> None:
        if self._address and " ".join("".join(self._text).split()) == LINK:
            self.found.append(self._address)
        self._address = None

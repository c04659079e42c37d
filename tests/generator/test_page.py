"""Address of the document on the reference page."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.document import GeneratorError
from generator.spec.reference_page import document_address, is_html

PAGE = "https://developer.atlassian.com/platform/forge/rest/v2/api-group-forge-realtime/"
STATIC = "https://dac-static.atlassian.com/cloud/confluence/openapi-v2.v3.json?_v=1.8494.0"


@pytest.mark.parametrize(
    ("html", "address"),
    [
        (f'<a href="{STATIC}">OpenAPI</a>', STATIC),
        (f'<a class=x href=" {STATIC}\n">\n <span>Open<b>API</b></span>\n</a>', STATIC),
        (f"<A HREF='{STATIC}'>&#79;penAPI&nbsp;</A>", STATIC),
        (f'<a href="{STATIC}&amp;a=b">OpenAPI</a>', f"{STATIC}&a=b"),
        ('<a href="//dac-static.atlassian.com/s.json">OpenAPI</a>', "https://dac-static.atlassian.com/s.json"),
        ('<a href="/s.json?_v=1">OpenAPI</a>', "https://developer.atlassian.com/s.json?_v=1"),
        ('<a href="s.json">OpenAPI</a>', f"{PAGE}s.json"),
        ('<base href="/static/"><a href="s.json">OpenAPI</a>', "https://developer.atlassian.com/static/s.json"),
        ('<a href="/p">Postman Collection</a> <a href="/s">OpenAPI</a>', "https://developer.atlassian.com/s"),
        ('<a href="/s"><svg><title>Download</title></svg>OpenAPI</a>', "https://developer.atlassian.com/s"),
        ('<a href="/s"><script>var a = 1</script>OpenAPI', "https://developer.atlassian.com/s"),
        ('<a href="/s">OpenAPI<a href="/t">Other</a>', "https://developer.atlassian.com/s"),
        ('<a href="/s">OpenAPI</a><a href="/s">OpenAPI</a><a>OpenAPI</a>', "https://developer.atlassian.com/s"),
        ('</svg></a></p><a href="/s">OpenAPI</a>', "https://developer.atlassian.com/s"),
    ],
)
def test_link_is_found_by_text(html: str, address: str) -> None:
    assert document_address(PAGE, f"<!DOCTYPE html><html><body>é {html}</body></html>".encode()) == address


@pytest.mark.parametrize(
    "html",
    [
        "",
        '<a href="/s">OpenAPI document</a>',
        '<a href="/s">openapi</a>',
        '<a href="/s">Open API</a>',
        "<a>OpenAPI</a>",
        '<a href="">OpenAPI</a>',
        '<p>OpenAPI</p><a href="/s">Postman</a>',
        '<!-- <a href="/s">OpenAPI</a> -->',
        '<script>"<a href=/s>OpenAPI</a>"</script>',
    ],
)
def test_page_without_link_is_refused(html: str) -> None:
    with pytest.raises(GeneratorError, match=r"has no link with the text 'OpenAPI'.*make pull SOURCE="):
        document_address(PAGE, html.encode())


def test_links_to_different_addresses_are_refused() -> None:
    html = b'<a href="/s">OpenAPI</a><a href="/t">OpenAPI</a>'
    with pytest.raises(GeneratorError, match=r"(?s)different addresses:\n  https://.*/s\n  https://.*/t\n"):
        document_address(PAGE, html)


@pytest.mark.parametrize("html", ['<a href="//[">OpenAPI</a>', '<base href="//["><a href="/s">OpenAPI</a>'])
def test_malformed_address_is_refused(html: str) -> None:
    with pytest.raises(GeneratorError, match=r"cannot be read as a web page: Invalid IPv6 URL\. Open"):
        document_address(PAGE, html.encode())


@given(st.binary() | st.text(alphabet="<>a/ href='\"=!-&#;[]svg").map(str.encode))
def test_any_page_gives_address_or_generator_error(content: bytes) -> None:
    with suppress(GeneratorError):
        assert document_address(PAGE, content)


def test_web_page_is_detected_by_media_type_or_content() -> None:
    assert is_html(b"", "text/html")
    assert is_html(b"\xef\xbb\xbf\r\n <!doctype html>", "application/json")
    assert not is_html(b'{"a": "<html>"}', "text/plain")

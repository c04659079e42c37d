"""Fetching a page or a document over HTTP: bounded in time and size, tried again where that may help, encrypted.

Proxies (HTTPS_PROXY, NO_PROXY) and certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR) of the environment hold here
as they do for httpx, for networks that cannot do without; a loopback address is never asked through a proxy.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import socket
import ssl
import zlib
from asyncio import sleep
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from generator.document import GeneratorError

LIMIT = 32 * 2**20  # bytes, unpacked
TOTAL = 120.0  # seconds, for all attempts, waits and redirects of one address
TIMEOUT = httpx.Timeout(20.0, connect=10.0)
WAITS = (0.5, 1.0, 2.0)  # seconds, before each further attempt; Retry-After can make them longer
REDIRECTS = 5

ELSEWHERE = (
    'Open the reference page in a browser, and pass the address behind its link "OpenAPI", or a saved copy of the '
    "document: make pull SOURCE=…"
)


@dataclass(frozen=True)
class Fetched:
    """What an address answered with status 200: the content without its transfer encoding, and what names it."""

    content: bytes
    media_type: str
    etag: str | None
    last_modified: str | None


class _MayPassError(GeneratorError):
    """The same request may succeed a little later."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(address: str, etag: str | None = None, last_modified: str | None = None) -> Fetched | None:
    """Gets what is at an address.

    Args:
        address: https, or http on a loopback address. Redirects lead only to such ones.
        etag: With `last_modified`, of the content that the caller has.
        last_modified: As the server wrote it.

    Returns:
        None if the caller's content is still the current one (status 304).

    Raises:
        GeneratorError: There is no answer within `TIMEOUT` and `TOTAL` seconds, or another one than 200 and at most
            `LIMIT` bytes.
    """
    validators = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return asyncio.run(_fetch(address, {name: value for name, value in validators.items() if value}))


async def _fetch(address: str, validators: dict[str, str]) -> Fetched | None:
    failure: _MayPassError | None = None
    try:
        async with asyncio.timeout(TOTAL) as timeout, _client() as client:
            for wait in (*WAITS, None):
                try:
                    return await _follow(client, address, validators)
                except _MayPassError as error:
                    failure = error
                left = (timeout.when() or 0.0) - asyncio.get_running_loop().time()
                if wait is None or max(wait, failure.wait) >= left:
                    break
                await sleep(max(wait, failure.wait))
    except TimeoutError as error:
        raise failure or GeneratorError(
            f"{address}: was not answered completely within {TOTAL:g} s. Try again later. {ELSEWHERE}"
        ) from error
    assert failure is not None
    raise failure


def _client() -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            # Asked for by name: httpx would accept whatever it finds an unpacker for.
            headers={"User-Agent": "forge-realtime-generator", "Accept-Encoding": "gzip"},
            timeout=TIMEOUT,
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise GeneratorError(
            f"The proxy that the environment names cannot be used: {error} Correct or unset HTTPS_PROXY, HTTP_PROXY "
            "and ALL_PROXY."
        ) from error


async def _follow(client: httpx.AsyncClient, address: str, validators: dict[str, str]) -> Fetched | None:
    url = _permitted(address, None)
    for _ in range(REDIRECTS + 1):
        try:
            async with client.stream("GET", url, headers=validators) as response:
                if not response.has_redirect_location:
                    return await _answer(response, bool(validators))
        except httpx.TransportError as error:
            raise _no_answer(url, error) from error
        url = _permitted(response.headers["Location"], url)
    raise GeneratorError(f"{address}: redirects in a circle, or more than {REDIRECTS} times. {ELSEWHERE}")


def _permitted(address: str, origin: httpx.URL | None) -> httpx.URL:
    said = f"{address}: " if origin is None else f"{origin}: redirects to {address}: "
    try:
        url = httpx.URL(address) if origin is None else origin.join(address)
    except httpx.InvalidURL as error:
        raise GeneratorError(f"{said}is not an address: {error}. {ELSEWHERE}") from error
    if url.userinfo:
        raise GeneratorError(
            f"{url.copy_with(username=None, password=None)}: the address holds a user name or password, which would be "
            "written into spec/source.toml. Save the document, and pass the file: make pull SOURCE=…"
        )
    local = _is_loopback(url) and (origin is None or _is_loopback(origin))
    if url.scheme != "https" and not (url.scheme == "http" and local):
        raise GeneratorError(
            f"{said}is not an https address; what comes unencrypted can be changed on its way. {ELSEWHERE}"
        )
    return url


def _is_loopback(url: httpx.URL) -> bool:
    try:
        return url.host == "localhost" or ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False


async def _answer(response: httpx.Response, conditional: bool) -> Fetched | None:
    status = response.status_code
    if status == 304 and conditional:
        return None
    said = f"{response.url}: answered {status} {response.reason_phrase}".rstrip()
    if status in {408, 429} or status >= 500:
        wait = _retry_after(response)
        asked = f" It asks to wait for {wait:g} s." if wait else ""
        raise _MayPassError(f"{said}.{asked} Try again later. {ELSEWHERE}", wait)
    if status != 200:
        raise GeneratorError(f"{said}. Has it moved, or is it closed to this machine? {ELSEWHERE}")
    return Fetched(
        content=await _content(response),
        media_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        etag=_validator(response, "ETag"),
        last_modified=_validator(response, "Last-Modified"),
    )


async def _content(response: httpx.Response) -> bytes:
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in {"identity", "gzip", "x-gzip", ""}:
        raise GeneratorError(f"{response.url}: is packed as {packing!r}, although gzip was asked for. {ELSEWHERE}")
    unpacking = zlib.decompressobj(wbits=31) if "gzip" in packing else None
    content = bytearray()
    try:
        async for chunk in response.aiter_raw():
            content += unpacking.decompress(chunk, LIMIT + 1 - len(content)) if unpacking else chunk
            if len(content) > LIMIT:
                raise GeneratorError(
                    f"{response.url}: is larger than {LIMIT} bytes. Is it the right address? If the document has grown "
                    "so much, raise LIMIT in generator/fetch.py."
                )
    except zlib.error as error:
        raise _MayPassError(f"{response.url}: is damaged: {error}. Try again later. {ELSEWHERE}") from error
    if unpacking and (not unpacking.eof or unpacking.unused_data):
        raise _MayPassError(f"{response.url}: is truncated or damaged gzip. Try again later. {ELSEWHERE}")
    return bytes(content)


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _validator(response: httpx.Response, name: str) -> str | None:
    value: str = response.headers.get(name, "")
    return value if value and value.isascii() and value.isprintable() else None


def _no_answer(url: httpx.URL, error: httpx.TransportError) -> GeneratorError:
    behind = list(causes(error))
    for cause in behind:
        # Covers a certificate that is not trusted, expired, or another host's, and a server that speaks no TLS.
        if isinstance(cause, ssl.SSLError):
            return GeneratorError(
                f"{url}: no trusted connection: {cause}. If your network has a certificate authority of its own, name "
                "its file in SSL_CERT_FILE; otherwise do not trust what is there."
            )
    if isinstance(error, httpx.ProxyError):
        what = f"the proxy that the environment names refuses: {error}. Correct or unset HTTPS_PROXY"
    elif any(isinstance(cause, socket.gaierror) for cause in behind):
        what = f"there is no address for the host {url.host}. Is this machine offline, or the name misspelt?"
    elif isinstance(error, httpx.ConnectTimeout):
        what = (
            f"no connection within {TIMEOUT.connect:g} s. Is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
        )
    elif isinstance(error, httpx.ConnectError):
        what = f"no connection: {behind[-1]}. Is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
    elif isinstance(error, httpx.TimeoutException):
        what = f"nothing came for {TIMEOUT.read:g} s. Try again later."
    else:
        what = (
            f"the answer is broken off or damaged: {str(error).rstrip('.') or type(error).__name__}. Try again later."
        )
    return _MayPassError(
        f"{url}: {what} Nothing was changed: the pinned document in spec/ is all that other targets need."
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what is behind it, down to the first cause."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]

"""HTTP client for pages and documents: encrypted, limited in time and size, with retries.

Uses the proxies (HTTPS_PROXY, NO_PROXY) and certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR) of the environment,
as httpx does. Never uses a proxy for a loopback address.
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

LIMIT = 32 * 2**20  # bytes, decompressed
TOTAL = 120.0  # seconds, for all attempts, waits and redirects of one address
TIMEOUT = httpx.Timeout(20.0, connect=10.0)
WAITS = (0.5, 1.0, 2.0)  # seconds, before each retry; Retry-After can lengthen them
REDIRECTS = 5

ELSEWHERE = (
    'Open the reference page in a browser, and pass the address of its link "OpenAPI" or a saved copy of the document: '
    "make pull SOURCE=…"
)


@dataclass(frozen=True)
class Fetched:
    """A response with status 200.

    Attributes:
        content: The decompressed body.
        media_type: In lower case, without parameters.
        etag: For a later conditional request.
        last_modified: For a later conditional request.
    """

    content: bytes
    media_type: str
    etag: str | None
    last_modified: str | None


class _TransientError(GeneratorError):
    """A failure after which the same request may succeed.

    Attributes:
        wait: Seconds that the server asks to wait.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(address: str, etag: str | None = None, last_modified: str | None = None) -> Fetched | None:
    """Fetch a page or a document.

    Args:
        address: https, or http on a loopback address. The same applies to redirects.
        etag: The ETag of the content that the caller has.
        last_modified: Its Last-Modified header.

    Returns:
        `None` if the caller's content is current (status 304).

    Raises:
        GeneratorError: No response within `TIMEOUT` and `TOTAL`, a status other than 200, or more than `LIMIT` bytes.
    """
    validators = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return asyncio.run(_fetch(address, {name: value for name, value in validators.items() if value}))


async def _fetch(address: str, validators: dict[str, str]) -> Fetched | None:
    failure: _TransientError | None = None
    try:
        async with asyncio.timeout(TOTAL) as timeout, _client() as client:
            for wait in (*WAITS, None):
                try:
                    return await _follow(client, address, validators)
                except _TransientError as error:
                    failure = error
                left = (timeout.when() or 0.0) - asyncio.get_running_loop().time()
                if wait is None or max(wait, failure.wait) >= left:
                    break
                await sleep(max(wait, failure.wait))
    except TimeoutError as error:
        raise failure or GeneratorError(
            f"{address}: no complete response within {TOTAL:g} s. Retry later. {ELSEWHERE}"
        ) from error
    assert failure is not None
    raise failure


def _client() -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            # By default, httpx also accepts the encodings of optional packages.
            headers={"User-Agent": "forge-realtime-generator", "Accept-Encoding": "gzip"},
            timeout=TIMEOUT,
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise GeneratorError(
            f"the proxy of the environment is unusable: {error} Correct or unset HTTPS_PROXY, HTTP_PROXY and ALL_PROXY."
        ) from error


async def _follow(client: httpx.AsyncClient, address: str, validators: dict[str, str]) -> Fetched | None:
    url = _check_address(address, None)
    for _ in range(REDIRECTS + 1):
        try:
            async with client.stream("GET", url, headers=validators) as response:
                if not response.has_redirect_location:
                    return await _read_response(response, conditional=bool(validators))
        except httpx.TransportError as error:
            raise _transport_failure(url, error) from error
        url = _check_address(response.headers["Location"], url)
    raise GeneratorError(f"{address}: redirects in a circle, or more than {REDIRECTS} times. {ELSEWHERE}")


def _check_address(address: str, origin: httpx.URL | None) -> httpx.URL:
    subject = f"{address}: " if origin is None else f"{origin}: redirects to {address}: "
    try:
        url = httpx.URL(address) if origin is None else origin.join(address)
    except httpx.InvalidURL as error:
        raise GeneratorError(f"{subject}is not a valid address: {error}. {ELSEWHERE}") from error
    if url.userinfo:
        raise GeneratorError(
            f"{url.copy_with(username=None, password=None)}: the address contains a user name or password, which "
            "would be written into spec/source.toml. Save the document, and pass the file: make pull SOURCE=…"
        )
    local = _is_loopback(url) and (origin is None or _is_loopback(origin))
    if url.scheme != "https" and not (url.scheme == "http" and local):
        raise GeneratorError(
            f"{subject}is not an https address, so the content could be changed on its way. {ELSEWHERE}"
        )
    return url


def _is_loopback(url: httpx.URL) -> bool:
    try:
        return url.host == "localhost" or ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False


async def _read_response(response: httpx.Response, *, conditional: bool) -> Fetched | None:
    status = response.status_code
    if status == 304 and conditional:
        return None
    subject = f"{response.url}: status {status} {response.reason_phrase}".rstrip()
    if status in {408, 429} or status >= 500:
        wait = _retry_after(response)
        hint = f"Retry after {wait:g} s." if wait else "Retry later."
        raise _TransientError(f"{subject}. {hint} {ELSEWHERE}", wait)
    if status != 200:
        raise GeneratorError(f"{subject}. Did it move, or is this machine not allowed to read it? {ELSEWHERE}")
    return Fetched(
        content=await _content(response),
        media_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        etag=_validator(response, "ETag"),
        last_modified=_validator(response, "Last-Modified"),
    )


async def _content(response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise GeneratorError(f"{response.url}: is encoded as {encoding!r}, but gzip was requested. {ELSEWHERE}")
    decompressor = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    content = bytearray()
    try:
        async for chunk in response.aiter_raw():
            content += decompressor.decompress(chunk, LIMIT + 1 - len(content)) if decompressor else chunk
            if len(content) > LIMIT:
                raise GeneratorError(
                    f"{response.url}: is larger than {LIMIT} bytes. Is it the right address? If the document has "
                    "grown, raise LIMIT in generator/spec/fetch.py."
                )
    except zlib.error as error:
        raise _TransientError(f"{response.url}: is damaged: {error}. Retry later. {ELSEWHERE}") from error
    if decompressor and (not decompressor.eof or decompressor.unused_data):
        raise _TransientError(f"{response.url}: is truncated or damaged gzip. Retry later. {ELSEWHERE}")
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


def _transport_failure(url: httpx.URL, error: httpx.TransportError) -> GeneratorError:
    causes = list(_causes(error))
    for cause in causes:
        # An untrusted or expired certificate, one of another host, or a server that does not speak TLS.
        if isinstance(cause, ssl.SSLError):
            return GeneratorError(
                f"{url}: no trusted connection: {cause}. If your network has its own certificate authority, set "
                "SSL_CERT_FILE to its file. Otherwise, do not trust this server."
            )
    if isinstance(error, httpx.ProxyError):
        what = f"the proxy of the environment refused the connection: {error}. Correct or unset HTTPS_PROXY."
    elif any(isinstance(cause, socket.gaierror) for cause in causes):
        what = f"the host {url.host} has no address. Is this machine offline, or the name misspelled?"
    elif isinstance(error, httpx.ConnectTimeout):
        what = (
            f"no connection within {TIMEOUT.connect:g} s. Is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
        )
    elif isinstance(error, httpx.ConnectError):
        what = f"no connection: {causes[-1]}. Is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
    elif isinstance(error, httpx.TimeoutException):
        what = f"no data for {TIMEOUT.read:g} s. Retry later."
    else:
        what = f"the response is incomplete or invalid: {str(error).rstrip('.') or type(error).__name__}. Retry later."
    return _TransientError(
        f"{url}: {what} Nothing was changed. The other targets need only the pinned document in spec/."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the root cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]

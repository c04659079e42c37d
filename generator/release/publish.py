"""Upload of a release to an internal package index: `make publish INDEX=https://…`.

INDEX is the upload address. Its Simple Repository API is expected at `INDEX/simple/`, where Artifactory, Nexus, GitLab,
CodeArtifact and pypiserver serve it. uv uploads, and skips files that the index already holds with the same bytes.
https://docs.astral.sh/uv/guides/package/
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import httpx

from generator.compare.client_side import version_of
from generator.document import GeneratorError
from generator.release.git import git, require_clean
from generator.text import say

_OVER_HTTP: Final = "FORGE_PUBLISH_OVER_HTTP"


def publish(root: Path, index: str) -> None:
    """Build, check and upload the release that is checked out.

    Over plain http, credentials are sent to a loopback address only, or if `FORGE_PUBLISH_OVER_HTTP` is 1. They come
    from `UV_PUBLISH_USERNAME` and `UV_PUBLISH_PASSWORD`, from `UV_PUBLISH_TOKEN`, or from keyring
    (`UV_KEYRING_PROVIDER=subprocess`).

    Args:
        root: The repository.
        index: The upload address: https, or http on this machine or a trusted network.

    Raises:
        GeneratorError: The address is invalid, the tree is dirty, the commit has no release tag, generated code is not
            up to date, or uv failed. No file is uploaded if the index holds other bytes under the name of one of them.
    """
    _check_address(index)
    require_clean(root)
    _check_released(root)
    check_url = _check_url(index)
    _check_credentials(check_url)
    _run(root, "generator", "check")
    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
        _run(root, "hatchling", "build", "--directory", folder)
        files = sorted(map(str, Path(folder).iterdir()))
        upload = ("uv", "publish", "--trusted-publishing", "never", "--publish-url", index)
        # In the environment, because every user of the machine can see a command line.
        environment = {"UV_PUBLISH_CHECK_URL": check_url}
        # Compares all files with the index before the first is uploaded.
        _run(root, *upload, "--dry-run", *files, **environment)
        _run(root, *upload, *files, **environment)
    say(f"published; to install it: pip install --index-url {index.rstrip('/')}/simple/ forge-realtime")


def _check_address(index: str) -> None:
    if not index:
        raise GeneratorError("no index is given. Name it: make publish INDEX=https://…")
    parts = urlsplit(index)
    if "@" in parts.netloc:
        # The message does not repeat the address.
        raise GeneratorError(
            "the address contains credentials, which every user of this machine can see. Remove them, and set "
            "UV_PUBLISH_USERNAME and UV_PUBLISH_PASSWORD."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GeneratorError(f"{index} is not an http or https address. Name the index: make publish INDEX=https://…")
    if parts.scheme == "http" and not _is_loopback(parts.hostname) and os.environ.get(_OVER_HTTP) != "1":
        raise GeneratorError(
            f"{index} is plain http: everyone on the way can read the credentials and change the files. "
            f"Use https. For a network that you trust, set {_OVER_HTTP}=1."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_released(root: Path) -> None:
    tag = f"v{version_of(root)}"
    if tag not in git(root, "tag", "--points-at", "HEAD").splitlines():
        raise GeneratorError(
            f"the commit is not a release: it has no tag {tag}. Run `make release` first. To publish an earlier "
            f"release: git fetch --tags, git switch --detach {tag}."
        )


def _check_url(index: str) -> str:
    # uv reads the index without the credentials of the upload; they have to be in the address.
    scheme, rest = f"{index.rstrip('/')}/simple/".split("://", 1)
    user, password = os.environ.get("UV_PUBLISH_USERNAME", ""), os.environ.get("UV_PUBLISH_PASSWORD", "")
    if token := os.environ.get("UV_PUBLISH_TOKEN"):
        user, password = "__token__", token
    credentials = ":".join(quote(part, safe="") for part in (user, password) if part)
    return f"{scheme}://{credentials}@{rest}" if user else f"{scheme}://{rest}"


def _check_credentials(check_url: str) -> None:
    # If the index refuses to list files, uv assumes that there are none.
    if not urlsplit(check_url).password:
        return
    try:
        status = httpx.get(f"{check_url}forge-realtime/", follow_redirects=True, timeout=30).status_code
    except httpx.TransportError:
        return  # uv explains it.
    if status in {401, 403}:
        raise GeneratorError(
            f"the index refused the credentials ({status}). Correct UV_PUBLISH_USERNAME and UV_PUBLISH_PASSWORD, or "
            "UV_PUBLISH_TOKEN."
        )


def _run(root: Path, module: str, *arguments: str, **environment: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=False, cwd=root, env={**os.environ, **environment}
    )
    if process.returncode:
        raise GeneratorError(f"{module} {arguments[0]} failed. Its output above says why.")

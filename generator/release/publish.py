"""Publishes wheel and sdist to an internal package index: `make publish INDEX=https://…`.

INDEX is the address that twine uploads to; what is there already is read from `INDEX/simple/`, where Artifactory, Nexus,
GitLab, CodeArtifact and pypiserver have it. Credentials are twine's business: `TWINE_USERNAME` and `TWINE_PASSWORD`, keyring,
or a prompt.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from twine.commands.upload import upload
from twine.exceptions import TwineException
from twine.settings import Settings

from generator.document import GeneratorError
from generator.release.git import git
from generator.spec.fetch import causes

_PROJECT: Final = "forge-realtime"
_SIMPLE_TYPES: Final = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_SECONDS: Final = 30


def publish(root: Path, index: str) -> None:
    """Builds, checks and uploads the release that is checked out.

    Args:
        root: The repository.
        index: The address of the index, as for `twine upload --repository-url`.

    Raises:
        GeneratorError: The address is none, the tree is dirty, no release or not as locked, the version is on the index
            already, or the index cannot be reached or refused it.
    """
    _check_address(index)
    _check_clean(root)
    version = _version(root)
    _check_released(root, version)
    try:
        settings = _settings(index)
        _check_new(index, settings, version)
        _run(root, "generator", "check")
        with tempfile.TemporaryDirectory(prefix="publish-") as made:
            _run(root, "hatchling", "build", "--directory", made)
            files = sorted(map(str, Path(made).iterdir()))
            _run(root, "twine", "check", "--strict", *files)
            _upload(settings, files)
        print(f"published; to install it: pip install --index-url {index.rstrip('/')}/simple/ {_PROJECT}")
    except TwineException as error:
        raise GeneratorError(
            f"{error} Set TWINE_USERNAME and TWINE_PASSWORD, or store them: keyring set {index} USER."
        ) from None
    except requests.RequestException as error:
        raise GeneratorError(f"{index}: {_no_answer(error)}") from None


def _check_address(index: str) -> None:
    if not index:
        raise GeneratorError("no index is given. Name it: make publish INDEX=https://…")
    parts = urlsplit(index)
    if "@" in parts.netloc:
        # Not shown.
        raise GeneratorError(
            "the address holds credentials, which every process of this machine can see."
            " Leave them out, and set TWINE_USERNAME and TWINE_PASSWORD."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GeneratorError(f"{index} is no http or https address. Name the index: make publish INDEX=https://…")


def _check_clean(root: Path) -> None:
    command = ["git", "status", "--porcelain", "--untracked-files=normal"]
    status = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    if status.returncode:
        raise GeneratorError(
            f"{root} is no clone of the repository, so nobody could say what was published. Use a clone."
        )
    if changed := status.stdout.splitlines():
        listed = "\n".join(changed[:20] + ["…"] * (len(changed) > 20))
        raise GeneratorError(
            f"the tree is dirty:\n{listed}\nCommit or remove that first: what is published is a commit."
        )


def _check_released(root: Path, version: Version) -> None:
    tag = f"v{version}"
    if tag not in git(root, "tag", "--points-at", "HEAD").splitlines():
        raise GeneratorError(
            f"the last commit is no release: it has no tag {tag}. `make release` first; or, to publish what was released, "
            f"git fetch --tags, git switch --detach {tag}."
        )


def _run(root: Path, module: str, *arguments: str) -> None:
    if subprocess.run([sys.executable, "-m", module, *arguments], check=False, cwd=root).returncode:
        raise GeneratorError(f"{module} {arguments[0]} failed, so nothing was uploaded. Its output above says why.")


def _version(root: Path) -> Version:
    command = [sys.executable, "-m", "hatchling", "version"]
    return Version(subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout.strip())


def _settings(index: str) -> Settings:
    # Through twine's own parser, which alone reads the environment.
    parser = argparse.ArgumentParser()
    Settings.register_argparse_arguments(parser)
    options = ["--repository-url", index, "--disable-progress-bar"]
    return Settings.from_argparse(parser.parse_args(options + ["--non-interactive"] * (not sys.stdin.isatty())))


def _check_new(index: str, settings: Settings, version: Version) -> None:
    address = f"{index.rstrip('/')}/simple/{_PROJECT}/"
    repository = settings.create_repository()
    try:
        answer = repository.session.get(address, headers={"Accept": _SIMPLE_TYPES}, timeout=_SECONDS)
    finally:
        repository.close()
    if answer.status_code == 404:
        return
    if answer.status_code in (401, 403):
        raise GeneratorError(
            f"{address}: the credentials were refused ({answer.status_code}). Set TWINE_USERNAME and TWINE_PASSWORD."
        )
    if answer.status_code != 200:
        raise GeneratorError(
            f"{address}: {answer.status_code}, so it is not known whether {version} exists. Nothing was uploaded."
        )
    if there := [name for name in _listed(answer) if _version_of(name) == version]:
        raise GeneratorError(
            f"{version} is on the index already: {', '.join(there)}. Raise the version, and publish that."
        )


def _listed(answer: requests.Response) -> list[str]:
    """The names of the files on a project's page, in one of the two formats of the Simple Repository API."""
    if "json" in answer.headers.get("Content-Type", ""):
        return [file["filename"] for file in json.loads(answer.content)["files"]]
    return [unescape(name).strip() for name in re.findall(r"<a\b[^>]*>([^<]*)</a>", answer.text, re.IGNORECASE)]


def _version_of(name: str) -> Version | None:
    try:
        return parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _upload(settings: Settings, files: list[str]) -> None:
    try:
        upload(settings, files)
    except requests.HTTPError as error:
        names = " and ".join(Path(file).name for file in files)
        raise GeneratorError(
            f"the index refused an upload: {_status(error)}. It may hold one of {names} now:"
            " remove that from it and publish again, or raise the version."
        ) from None


def _status(error: requests.RequestException) -> str:
    assert error.response is not None
    return f"{error.response.status_code} {error.response.reason}"


def _no_answer(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"{_status(error)}. Check the address."
    behind = list(causes(error))
    for cause in behind:
        if isinstance(cause, ssl.SSLError):
            return (
                f"no trusted connection: {cause}. If your network has a certificate authority of its own, name its file in "
                "TWINE_CERT; otherwise do not trust what is there."
            )
        if isinstance(cause, socket.gaierror):
            return "there is no address for the host. Is this machine offline, or the name misspelt?"
    if isinstance(error, requests.Timeout):
        return f"no answer within {_SECONDS} s. Is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
    return (
        f"no connection: {behind[-1]}. Check the address; is this machine offline, or is a proxy needed (HTTPS_PROXY)?"
    )

"""Copies this package into an app, brings the copy up to date, and proves that nobody has touched it.

    python -m forge_realtime.vendor app/_vendor            # makes or updates app/_vendor/forge_realtime
    python -m forge_realtime.vendor --check app/_vendor    # exit code 1 when a file differs

The app imports it as `app._vendor.forge_realtime`, and has to install what the core needs: attrs, httpx and python-dateutil.
Another version can be installed next to it. The copy is the whole package, with a manifest, `vendored.json`: its version, its
document, when it was made, and the SHA-256 of every file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from . import __document__, __version__

MANIFEST: Final = "vendored.json"
_SOURCE: Final = Path(__file__).resolve().parent
_SHOWN: Final = 20


class VendorError(Exception):
    """The copy is not untouched, or could not be made; what is there was left as it was. The message says what to do."""


@frozen
class _Manifest:
    version: str
    document_version: str
    document_sha256: str
    vendored: datetime
    files: Mapping[str, str]

    def to_json(self) -> str:
        value = {
            "version": self.version,
            "document": {"version": self.document_version, "sha256": self.document_sha256},
            "vendored": self.vendored.isoformat(),
            "files": self.files,
        }
        return json.dumps(value, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> _Manifest:
        """Reads a manifest.

        Raises:
            ValueError: It is none.
        """
        value: Any = json.loads(text)
        try:
            document, files = value["document"], value["files"]
            vendored = datetime.fromisoformat(value["vendored"])
            texts = [value["version"], document["version"], document["sha256"], *files.values()]
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("no manifest") from error
        if vendored.tzinfo is None or not all(isinstance(each, str) for each in texts):
            raise ValueError("no manifest")
        return cls(value["version"], document["version"], document["sha256"], vendored, files)


def vendor(destination: Path, *, force: bool = False) -> str:
    """Copies this package into a folder, or brings the copy there up to date. It is replaced as a whole, or not at all.

    Args:
        destination: The folder to hold the copy, for example `app/_vendor`. It need not exist.
        force: Whether a copy that was edited is replaced.

    Returns:
        What was done.

    Raises:
        VendorError: Something else is there, or the copy was edited.
        OSError: A file cannot be read or written.
    """
    copy = _place(destination)
    if (_SOURCE / MANIFEST).exists():
        raise VendorError(f"{_SOURCE} is itself a copy, which may be edited. Copy from an installed wheel.")
    contents = {name: path.read_bytes() for name, path in _files(_SOURCE)}
    if not contents:
        raise VendorError(f"{_SOURCE} is no folder, so nothing can be copied from it. Install the wheel with pip.")
    made = _Manifest(
        version=__version__,
        document_version=__document__.version,
        document_sha256=__document__.sha256,
        vendored=datetime.now(UTC).replace(microsecond=0),
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    done = f"{copy}: forge-realtime {__version__}, {len(contents)} files."
    if (copy / MANIFEST).exists() or any(_files(copy)):
        former = _read_manifest(copy)
        edits = _edits(copy, former)
        if edits and not force:
            raise VendorError(
                f"{copy} was edited since it was copied:\n{_shown(edits)}\n"
                "Keep what you need of that elsewhere, then run this again with --force (make vendor FORCE=1) to discard it."
            )
        if not edits and evolve(former, vendored=made.vendored) == made:
            return f"{copy} is up to date: forge-realtime {__version__}."
        discarded = f" Discarded:\n{_shown(edits)}" if edits else ""
        done = f"{done} It was {former.version}.{discarded}"
    _put(copy.resolve(), {**contents, MANIFEST: made.to_json().encode()})
    return done


def check(destination: Path) -> str:
    """Proves that a copy is as it was made.

    Args:
        destination: The folder that holds the copy, as for `vendor`.

    Returns:
        What it is a copy of, and how old.

    Raises:
        VendorError: A file was modified, is missing or is extra, or there is no copy.
    """
    copy = _place(destination)
    manifest = _read_manifest(copy)
    age = f"{_described(manifest)}\n{_compared(copy, manifest)}"
    if edits := _edits(copy, manifest):
        raise VendorError(f"{copy} is not as it was copied:\n{_shown(edits)}\n{age}")
    return f"{copy} is untouched: {len(manifest.files)} files.\n{age}"


def _place(destination: Path) -> Path:
    if (destination / MANIFEST).exists():
        raise VendorError(f"{destination} is the copy itself. Name the folder that holds it: {destination.parent}.")
    for folder in (destination, destination / _SOURCE.name):
        if folder.exists() and not folder.is_dir():
            raise VendorError(f"{folder} is a file. Name a folder for the copy, such as app/_vendor.")
    copy = destination / _SOURCE.name
    if destination.resolve().is_relative_to(_SOURCE):
        raise VendorError(f"{destination} is inside the package that is to be copied. Name a folder of the app.")
    return copy


def _read_manifest(copy: Path) -> _Manifest:
    try:
        return _Manifest.from_json((copy / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(_files(copy)):
            raise VendorError(
                f"{copy} holds something else than a copy made by this command: it has no {MANIFEST}. Choose another folder."
            ) from None
        raise VendorError(f"{copy} is not there. Make it: python -m {__package__}.vendor {copy.parent}.") from None
    except ValueError:
        raise VendorError(
            f"{copy / MANIFEST} cannot be read. Restore it from version control; or remove {copy} and copy anew."
        ) from None


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of the package or of a copy by their path in it, but for what Python writes there and the manifest."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # A link to a folder counts as a file, which no copy has.
        if "__pycache__" not in name.parts and str(name) != MANIFEST and (path.is_symlink() or not path.is_dir()):
            yield name.as_posix(), path


def _edits(copy: Path, manifest: _Manifest) -> list[str]:
    found = {name: _sha256(path) for name, path in _files(copy)}
    modified = [name for name in found if name in manifest.files and found[name] != manifest.files[name]]
    return [
        *(f"modified: {name}" for name in modified),
        *(f"missing: {name}" for name in sorted(manifest.files.keys() - found.keys())),
        *(f"extra: {name}" for name in sorted(found.keys() - manifest.files.keys())),
    ]


def _sha256(path: Path) -> str | None:
    """None for what cannot be read, such as a link that leads nowhere: no file of the package."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _shown(edits: list[str]) -> str:
    more = [f"and {len(edits) - _SHOWN} more"] if len(edits) > _SHOWN else []
    return "\n".join(f"  {line}" for line in edits[:_SHOWN] + more)


def _described(manifest: _Manifest) -> str:
    days = (datetime.now(UTC) - manifest.vendored).days
    when = f"{manifest.vendored:%Y-%m-%d}, {days} {'day' if days == 1 else 'days'} ago"
    return (
        f"Copied: {when}. Version: {manifest.version}. "
        f"Document: version {manifest.document_version}, SHA-256 {manifest.document_sha256[:12]}."
    )


def _compared(copy: Path, manifest: _Manifest) -> str:
    if copy.resolve() == _SOURCE:
        return "To compare it with the installed package, run that one's command."
    if manifest.files == {name: _sha256(path) for name, path in _files(_SOURCE)}:
        return "The installed package is the same."
    version = "the same version" if manifest.version == __version__ else f"version {__version__}"
    document = "the same" if manifest.document_sha256 == __document__.sha256 else __document__.sha256[:12]
    return f"The installed package differs: {version}, document {document}."


def _put(copy: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the copy beside its place and moves it there; if that fails or is interrupted, the former one is put back."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".vendor-") as scratch:
        made, former = Path(scratch, "made"), Path(scratch, "former")
        for name, content in contents.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            if copy.exists():
                os.replace(copy, former)
            os.replace(made, copy)
        except BaseException:
            if former.exists() and not copy.exists():
                os.replace(former, copy)
            raise


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("name the folder that is to hold the copy, such as app/_vendor")
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit code: 0, 1 after an error that was printed, 2 for wrong arguments, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.vendor", description="Copy this package into an app, or check such a copy."
    )
    parser.add_argument("destination", type=_folder, help="the folder that holds the copy, for example app/_vendor")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing; exit code 1 when the copy was edited")
    mode.add_argument("--force", action="store_true", help="replace the copy even if it was edited")
    options = parser.parse_args(arguments)
    try:
        print(check(options.destination) if options.check else vendor(options.destination, force=options.force))
    except VendorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}. Check the path, its permissions and the space on the disk.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    # Both end as Ctrl-C does: by undoing what is half done.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())

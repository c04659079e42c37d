"""Copy this package into an app, update the copy, and check that nobody edited it.

    python -m forge_realtime.vendor app/_vendor            # creates or updates app/_vendor/forge_realtime
    python -m forge_realtime.vendor --check app/_vendor    # exit code 1 if a file differs

The app imports the copy as `app._vendor.forge_realtime` and installs what the core needs: attrs, httpx and
python-dateutil. Another version can be installed beside it. The copy is the whole package and a manifest, `SHA256SUMS`,
which `sha256sum --check` can read as well.
"""
# ruff: noqa: T201 -- a command prints

from __future__ import annotations

import argparse
import hashlib
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from attrs import frozen

from . import __document__, __version__

MANIFEST: Final = "SHA256SUMS"
_MANIFEST_FORM: Final = re.compile(r"# (.+)\n# copied (.+)\n((?:[0-9a-f]{64}  .+\n)+)")
_SOURCE: Final = Path(__file__).resolve().parent
_RELEASE: Final = (
    f"forge-realtime {__version__}, document version {__document__.version}, SHA-256 {__document__.sha256[:12]}"
)
_MOST_SHOWN: Final = 20


class VendorError(Exception):
    """The copy was edited or cannot be made. Nothing was changed."""


@frozen
class _Manifest:
    release: str
    copied: date
    sums: Mapping[str, str]


def vendor(destination: Path, *, force: bool = False) -> str:
    """Copy this package into a folder, or update the copy there, as a whole or not at all. Return what was done.

    Args:
        destination: Folder to hold the copy, for example `app/_vendor`. It is created if need be.
        force: Whether to replace an edited copy.

    Raises:
        VendorError: The copy was edited, or something else is in its place.
        OSError: A file cannot be read or written.
    """
    copy = _find_copy(destination)
    if (_SOURCE / MANIFEST).exists():
        raise VendorError(f"{_SOURCE} is itself a copy, which may be edited. Copy from an installed wheel.")
    contents = {name: path.read_bytes() for name, path in _files(_SOURCE)}
    if not contents:
        raise VendorError(f"{_SOURCE} is not a folder, so it cannot be copied. Install the wheel with pip.")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    done = f"{copy}: {_RELEASE}, {len(sums)} files."
    if (copy / MANIFEST).exists() or any(_files(copy)):
        former = _read_manifest(copy)
        edits = _find_edits(copy, former)
        if edits and not force:
            raise VendorError(
                f"{copy} was edited since it was copied:\n{_shown(edits)}\n"
                "Save what you need elsewhere, then run this again with --force (make vendor FORCE=1) to discard it."
            )
        if not edits and former.sums == sums:
            return f"{copy} is up to date: {_RELEASE}."
        discarded = f" Discarded:\n{_shown(edits)}" if edits else ""
        done = f"{done} It was {former.release}.{discarded}"
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
    manifest = f"# {_RELEASE}\n# copied {datetime.now(UTC).date()}\n{lines}"
    _replace(copy.resolve(), {**contents, MANIFEST: manifest.encode()})
    return done


def check(destination: Path) -> str:
    """Check that the copy in a folder is unchanged.

    Returns:
        What the copy was made from, its age, and how it compares with the installed package.

    Raises:
        VendorError: A file was modified, is missing or is extra, or there is no copy.
    """
    copy = _find_copy(destination)
    manifest = _read_manifest(copy)
    days = (datetime.now(UTC).date() - manifest.copied).days
    age = f"copied {manifest.copied}, {days} {'day' if days == 1 else 'days'} ago"
    if copy.resolve() == _SOURCE:
        comparison = "To compare it with the installed package, run the command of that one."
    elif manifest.sums == _sums(_SOURCE):
        comparison = "The installed package is the same."
    else:
        release = "same version and document" if manifest.release == _RELEASE else _RELEASE
        comparison = f"The installed package differs: {release}."
    about = f"It is {manifest.release}; {age}.\n{comparison}"
    if edits := _find_edits(copy, manifest):
        raise VendorError(f"{copy} was edited since it was copied:\n{_shown(edits)}\n{about}")
    return f"{copy} is unchanged: {len(manifest.sums)} files.\n{about}"


def _find_copy(destination: Path) -> Path:
    copy, resolved = destination / _SOURCE.name, destination.resolve()
    if resolved.name == _SOURCE.name and (destination / MANIFEST).exists():
        raise VendorError(f"{destination} is the copy itself. Name the folder that holds it: {resolved.parent}.")
    for folder in (destination, copy):
        if folder.exists() and not folder.is_dir():
            raise VendorError(f"{folder} is a file. Name a folder for the copy, such as app/_vendor.")
    if resolved.is_relative_to(_SOURCE):
        raise VendorError(f"{destination} is inside the package to copy. Name a folder of the app.")
    return copy


def _read_manifest(copy: Path) -> _Manifest:
    try:
        match = _MANIFEST_FORM.fullmatch((copy / MANIFEST).read_text(encoding="utf-8"))
        if match is not None:
            release, copied, sums = match.groups()
            by_name = {line[66:]: line[:64] for line in sums.removesuffix("\n").split("\n")}
            return _Manifest(release, date.fromisoformat(copied), by_name)
    except FileNotFoundError:
        problem = f"{copy} does not exist. Make it: python -m {__package__}.vendor {copy.parent}."
        if any(_files(copy)):
            problem = f"{copy} was not made by this command: it has no {MANIFEST}. Choose another folder."
        raise VendorError(problem) from None
    except ValueError:
        pass  # Not UTF-8, or not a date.
    raise VendorError(
        f"{copy / MANIFEST} cannot be read. Restore it from version control, or remove {copy} and copy again."
    )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Find the files of the package or of a copy, without the manifest and what Python writes there."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # A link to a folder counts as a file: no copy has one.
        if "__pycache__" not in name.parts and str(name) != MANIFEST and (path.is_symlink() or not path.is_dir()):
            yield name.as_posix(), path


def _find_edits(copy: Path, manifest: _Manifest) -> list[str]:
    found, expected = _sums(copy), manifest.sums
    return [
        *(f"modified: {name}" for name in sorted(found.keys() & expected) if found[name] != expected[name]),
        *(f"missing: {name}" for name in sorted(expected.keys() - found)),
        *(f"extra: {name}" for name in sorted(found.keys() - expected)),
    ]


def _sums(folder: Path) -> dict[str, str | None]:
    sums: dict[str, str | None] = {}
    for name, path in _files(folder):
        # For what cannot be read, such as a broken link.
        sums[name] = None
        with suppress(OSError):
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


def _shown(edits: list[str]) -> str:
    more = [f"and {len(edits) - _MOST_SHOWN} more"] if len(edits) > _MOST_SHOWN else []
    return "\n".join(f"  {line}" for line in edits[:_MOST_SHOWN] + more)


def _replace(copy: Path, contents: Mapping[str, bytes]) -> None:
    """Write the copy beside its place and move it there. After an error or interrupt, the former copy is back."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".vendor-") as scratch:
        made, former = Path(scratch, "made"), Path(scratch, "former")
        for name, content in contents.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            if copy.exists():
                copy.replace(former)
            made.replace(copy)
        except BaseException:
            if former.exists() and not copy.exists():
                former.replace(copy)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code: 0, 1 after an error, 130 after an interrupt."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.vendor", description="Copy this package into an app, or check such a copy."
    )
    parser.add_argument("destination", help="the folder that holds the copy, for example app/_vendor")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the copy was edited")
    mode.add_argument("--force", action="store_true", help="replace the copy even if it was edited")
    options = parser.parse_args(arguments)
    if not options.destination:
        parser.error("argument destination: name the folder for the copy, such as app/_vendor")
    destination = Path(options.destination)
    try:
        print(check(destination) if options.check else vendor(destination, force=options.force))
    except (VendorError, OSError) as error:
        advice = ". Check the path, its permissions and the free disk space." if isinstance(error, OSError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    # As Ctrl-C: undo what is half done.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())

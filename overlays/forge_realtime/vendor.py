"""Copy this package into an app, update the copy, and check that nobody edited it.

    python -m forge_realtime.vendor app/_vendor            # creates or updates app/_vendor/forge_realtime
    python -m forge_realtime.vendor --check app/_vendor    # exit code 1 if a file or its bytecode differs

The app imports the copy as `app._vendor.forge_realtime` and installs what the core needs: attrs, httpx and
python-dateutil. Another version can be installed beside it. The copy is the whole package and a manifest, `SHA256SUMS`,
which `sha256sum --check` can read as well.
"""
# ruff: noqa: T201 -- a command prints

from __future__ import annotations

import argparse
import hashlib
import marshal
import os
import re
import signal
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.util import MAGIC_NUMBER, source_from_cache, source_hash
from pathlib import Path
from types import CodeType
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
_BYTECODE: Final = "__pycache__"


class VendorError(Exception):
    """The copy was edited or cannot be made. Nothing was changed."""


@frozen
class _Manifest:
    release: str
    copied: date
    sums: Mapping[str, str]


def vendor(destination: Path, *, force: bool = False) -> str:
    """Copy this package into a folder, or update the copy there, as a whole or not at all. Return what was done.

    An update also removes bytecode that is not that of the copy's files.

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
    contents = _read_package()
    if not contents:
        raise VendorError(f"{_SOURCE} is not a folder, so it cannot be copied. Install the wheel with pip.")
    sums = _sums(contents)
    done = f"{copy}: {_RELEASE}, {len(sums)} files."
    if os.path.lexists(copy / MANIFEST) or _scan(copy)[0]:
        former = _read_manifest(copy)
        edits, bytecode = _find_edits(copy, former)
        if edits and not force:
            raise VendorError(
                f"{copy} was edited since it was copied:\n{_shown(edits)}\n"
                "Save what you need elsewhere, then run this again with --force (make vendor FORCE=1) to discard it."
            )
        if not edits and former.sums == sums:
            for name in bytecode:
                (copy / name).unlink(missing_ok=True)
            removed = f" Removed bytecode that is not of its files:\n{_shown(bytecode)}" if bytecode else ""
            return f"{copy} is up to date: {_RELEASE}.{removed}"
        discarded = f" Discarded:\n{_shown(edits)}" if edits else ""
        done = f"{done} It was {former.release}.{discarded}"
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
    manifest = f"# {_RELEASE}\n# copied {datetime.now(UTC).date()}\n{lines}"
    _replace(copy.resolve(), {**contents, MANIFEST: manifest.encode()})
    return done


def check(destination: Path) -> str:
    """Check that the copy in a folder is unchanged, and that Python runs its files and no other bytecode.

    Returns:
        What the copy was made from, its age, and how it compares with the installed package.

    Raises:
        VendorError: A file was modified, is missing or is extra, also compared with an installed package of the same
            version and document; or there is no copy.
    """
    copy = _find_copy(destination)
    manifest = _read_manifest(copy)
    days = (datetime.now(UTC).date() - manifest.copied).days
    age = f"copied {manifest.copied}, {days} {'day' if days == 1 else 'days'} ago"
    differences: list[str] = []
    if copy.resolve() == _SOURCE:
        comparison = "To compare it with the installed package, run the command of that one."
    elif manifest.sums == (installed := _sums(_read_package())):
        comparison = "The installed package is the same version and document."
    elif manifest.release == _RELEASE and installed:
        comparison = "The installed package has the same version and document, but other files."
        differences = _compare(manifest.sums, installed)
    else:
        comparison = f"The installed package differs: {_RELEASE}."
    about = f"It is {manifest.release}; {age}.\n{comparison}"
    edits, bytecode = _find_edits(copy, manifest)
    if edits or bytecode:
        edits += [f"bytecode of other code: {name}" for name in bytecode]
        remedy = f"\nRemove the bytecode: python -m {_SOURCE.name}.vendor {destination}." if bytecode else ""
        raise VendorError(f"{copy} was edited since it was copied:\n{_shown(edits)}\n{about}{remedy}")
    if differences:
        raise VendorError(
            f"{copy} was edited together with its {MANIFEST}, or another build of the same version is installed:\n"
            f"{_shown(differences)}\n{about}\nCopy again if the installed package is the right one."
        )
    return f"{copy} is unchanged: {len(manifest.sums)} files.\n{about}"


def _find_copy(destination: Path) -> Path:
    copy, resolved = destination / _SOURCE.name, destination.resolve()
    if resolved.name == _SOURCE.name and (destination / MANIFEST).exists():
        raise VendorError(f"{destination} is the copy itself. Name the folder that holds it: {resolved.parent}.")
    if copy.is_symlink():
        raise VendorError(f"{copy} is a link, so nothing holds its files in place. Remove it, and copy again.")
    for folder in (destination, copy):
        if folder.exists() and not folder.is_dir():
            raise VendorError(f"{folder} is a file. Name a folder for the copy, such as app/_vendor.")
    if resolved.is_relative_to(_SOURCE):
        raise VendorError(f"{destination} is inside the package to copy. Name a folder of the app.")
    return copy


def _read_manifest(copy: Path) -> _Manifest:
    path = copy / MANIFEST
    try:
        # Reading a pipe would wait for ever.
        match = _MANIFEST_FORM.fullmatch(path.read_text(encoding="utf-8")) if _is_regular(path) else None
        if match is not None:
            release, copied, sums = match.groups()
            by_name = {line[66:]: line[:64] for line in sums.removesuffix("\n").split("\n")}
            return _Manifest(release, date.fromisoformat(copied), by_name)
    except FileNotFoundError:
        problem = f"{copy} does not exist. Make it: python -m {__package__}.vendor {copy.parent}."
        if _scan(copy)[0]:
            problem = f"{copy} was not made by this command: it has no {MANIFEST}. Choose another folder."
        raise VendorError(problem) from None
    except ValueError:
        pass  # Not UTF-8, or not a date.
    raise VendorError(
        f"{copy / MANIFEST} cannot be read. Restore it from version control, or remove {copy} and copy again."
    )


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _read_package() -> dict[str, bytes]:
    """Read the files of this package. Some installers make them links."""
    files = [path for path in sorted(_SOURCE.rglob("*")) if path.is_file() and _BYTECODE not in path.parts]
    return {path.relative_to(_SOURCE).as_posix(): path.read_bytes() for path in files}


def _sums(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _scan(copy: Path) -> tuple[list[str], list[str]]:
    """List what a copy holds beside its manifest, and apart from that the bytecode. Follows no links.

    A folder appears as a name that ends in a slash, but for folders of bytecode.
    """
    names: list[str] = []
    bytecode: list[str] = []
    for folder, folders, files in os.walk(copy):
        here = Path(folder).relative_to(copy)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        names += (f"{(here / name).as_posix()}/" for name in folders if name not in links and name != _BYTECODE)
        for name in [*files, *links]:
            is_bytecode = here.name == _BYTECODE and name.endswith(".pyc")
            (bytecode if is_bytecode else names).append((here / name).as_posix())
    return sorted(name for name in names if name != MANIFEST), sorted(bytecode)


def _find_edits(copy: Path, manifest: _Manifest) -> tuple[list[str], list[str]]:
    """List the edits of a copy, and its bytecode that Python may run and that is not of its files."""
    names, bytecode = _scan(copy)
    needed = {f"{folder.as_posix()}/" for name in manifest.sums for folder in Path(name).parents}
    found = {name: _sum(copy / name) for name in names if name not in needed}
    foreign = [name for name in bytecode if not _is_own_bytecode(copy / name)]
    return _compare(found, manifest.sums), foreign


def _compare(found: Mapping[str, str | None], expected: Mapping[str, str]) -> list[str]:
    return [
        *(f"modified: {name}" for name in sorted(found.keys() & expected) if found[name] != expected[name]),
        *(f"missing: {name}" for name in sorted(expected.keys() - found)),
        *(f"extra: {name}" for name in sorted(found.keys() - expected)),
    ]


def _sum(path: Path) -> str | None:
    """Return the hash of a regular file; None for a link, a pipe or what cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if _is_regular(path) else None
    except OSError:
        return None


def _is_own_bytecode(path: Path) -> bool:
    """Tell whether bytecode is that of the source beside it, or is out of date so that Python compiles that anew."""
    try:
        source = Path(source_from_cache(path))
        if not (_is_regular(path) and _is_regular(source)):
            return False
        content, text, state = path.read_bytes(), source.read_bytes(), source.stat()
        # https://peps.python.org/pep-0552/
        kind = int.from_bytes(content[4:8], "little")
        stamps = {
            0: b"".join((int(number) & 0xFFFFFFFF).to_bytes(4, "little") for number in (state.st_mtime, state.st_size)),
            3: source_hash(text),
        }
        if kind not in stamps:
            return False
        if content[8:16] != stamps[kind]:
            return True
        if content[:4] != MAGIC_NUMBER:
            # Only this Python is known to compile again then.
            return path.name.split(".")[1] == sys.implementation.cache_tag
        # A right stamp does not prove the right code.
        code = marshal.loads(content[16:])  # noqa: S302 (what it gives is compared, never run)
        level = int(path.name.removesuffix(".pyc").rpartition(".opt-")[2]) if ".opt-" in path.name else 0
        return isinstance(code, CodeType) and code == compile(
            text, code.co_filename, "exec", dont_inherit=True, optimize=level
        )
    except (OSError, ValueError, EOFError, TypeError, SyntaxError):
        return False


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

"""Command `init`: write a service that runs.

The template is an app of its own, named `example-app`, in the folders `_templates/common` and `_templates/fastapi` or
`_templates/django`. The page's module for streams is the one that the emulator serves.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from .command import Command, tell

_NAME = "example-app"
_REQUIREMENT = re.compile(r"^(forge-realtime(?:\[emulator\])?)==0$", re.MULTILINE)
# As documented for a service's key, and its form in Atlassian's schema of manifests.
_MOST_CHARACTERS = 19
_KEY = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_STREAMS = ("streams.js", "streams.d.ts")


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--django", is_flag=True, help="Use Django instead of FastAPI.")
def init(*, directory: Path, django: bool) -> None:
    """Write a service for a Forge Container into DIR.

    It has tests, a Dockerfile, a manifest, a page, and a compose file that runs it with the emulator. DIR is a new or
    an empty folder. Its name becomes the key of the service.

    \b
      forge-realtime init my-service
    """  # noqa: D301 - click looks for the character that \b stands for
    name = _name(directory)
    try:
        if not directory.is_dir() and directory.exists():
            raise click.UsageError(f"{directory} is not a folder. Name a new folder, or remove the file.")
        if directory.is_dir() and any(directory.iterdir()):
            raise click.UsageError(f"{directory} is not empty. Name a new folder, or empty this one.")
        _write(directory, _render(name, "django" if django else "fastapi"))
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written ({error}). Nothing was written.") from error
    tell(f"{name} is ready. Test it, and run it with the emulator:")
    click.echo(f"cd {shlex.quote(str(directory))} && pip install -r requirements-dev.txt")
    click.echo("python -m pytest")
    click.echo("docker compose up --build")
    tell(f"The first command needs forge-realtime in your package index, or its wheel in {directory / 'wheels'}.")


def _name(directory: Path) -> str:
    """Return the key of the service for a folder: lower case, with hyphens."""
    given = directory.resolve().name
    name = re.sub(r"[ ._-]+", "-", given).strip("-").lower()
    if len(name) > _MOST_CHARACTERS or not _KEY.fullmatch(name):
        raise click.BadParameter(
            f"{given!r} cannot become the key of a service: at most {_MOST_CHARACTERS} letters a to z, digits and"
            " hyphens, with a letter first. Choose another name, for example: forge-realtime init my-service",
            param_hint="DIR",
        )
    return name


def _render(name: str, framework: str) -> dict[str, str]:
    """Return the files of a service by their paths."""
    package = files("forge_realtime_emulator")
    rendered = {f"frontend/{file}": (package / "static" / file).read_text(encoding="utf-8") for file in _STREAMS}
    for folder in ("common", framework):
        for path, file in _walk(package / "_templates" / folder):
            text = file.read_text(encoding="utf-8").replace(_NAME, name)
            rendered[path] = _REQUIREMENT.sub(rf"\1=={version('forge-realtime')}", text)
    return rendered


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield prefix + entry.name, entry
        elif entry.name != "__pycache__":
            yield from _walk(entry, f"{prefix}{entry.name}/")


def _write(directory: Path, contents: dict[str, str]) -> None:
    """Write all files, or none."""
    with contextlib.ExitStack() as undo:
        for path, text in contents.items():
            file = directory / path
            for folder in reversed([folder for folder in file.parents if not folder.exists()]):
                folder.mkdir()
                undo.callback(folder.rmdir)
            with file.open("x", encoding="utf-8", newline="\n") as writing:
                undo.callback(file.unlink)
                writing.write(text)
        undo.pop_all()

"""The command line: `python -m generator --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from generator.compare.rules import PARTS
from generator.document import Document, GeneratorError, blaming, canonical_json, read_document, write_atomically
from generator.paths import CONFIG, DOCUMENT, LOCK, OVERLAYS
from generator.pipeline.atomic_replace import replace_atomically, scratch_folder
from generator.pipeline.lock import hash_folder, lock_text
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.regenerate import check, generate
from generator.pipeline.render import render
from generator.pipeline.select import REALTIME_TAG, select
from generator.pipeline.sibling_client import make_client
from generator.spec.pull import pull
from generator.text import escape_hidden, say, write_stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 after an error, 2 for invalid arguments, 130 after an interrupt.
    """
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except GeneratorError as error:
        print(f"error: {escape_hidden(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        text = escape_hidden(str(error))
        print(f"error: {text}. Check the path, its permissions and the space on the disk.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:  # noqa: C901, PLR0912 (one branch for each command)
    root: Path = options.root
    match options.command:
        case "pull":
            pull(root, options.source, force=options.force)
        case "select":
            path = options.document or root / DOCUMENT
            document = read_document(path)
            with blaming(path):
                selected = select(document, options.tag or [REALTIME_TAG])
            _write(selected, options.output)
        case "patch":
            overlays = overlay_files(options.overlays or root / OVERLAYS)
            _write(patch(read_document(options.document), overlays), options.output)
        case "render":
            document = read_document(options.document)
            with blaming(options.document):
                _render_into(document, root / CONFIG, options.output)
        case "client":
            made = make_client(
                root,
                options.tag,
                options.package,
                options.output,
                force=options.force,
                check_types=options.check_types,
            )
            say(f"made: {made}")
        case "lock":
            write_atomically(root / LOCK, lock_text(root, root))
        case "generate":
            generate(root)
        case "check":
            check(root)
        case "publish":
            from generator.release.publish import publish

            publish(root, options.index)
        case "diff":
            # griffe and openapi-python-client are slow to import.
            from generator.compare.diff import diff
            from generator.compare.report import as_json, as_text

            found = diff(root, options.old, options.new)
            text = as_json(found) if options.json else as_text(found)
            if options.output is None:
                write_stdout(text)
            else:
                write_atomically(options.output, text)
        case "release":
            from generator.release.release import release

            release(root, options.bump, datetime.now(UTC).date())
        case "propose":
            from generator.release.propose import propose

            propose(root, options.source)


def _write(document: Document, output: Path | None) -> None:
    if output is None:
        write_stdout(canonical_json(document))
    else:
        write_atomically(output, canonical_json(document))


def _render_into(document: Document, config: Path, output: Path) -> None:
    output = output.resolve()
    if output.exists() and not (output / "client.py").is_file() and (output.is_file() or any(output.iterdir())):
        raise GeneratorError(f"--output {output} is not a rendered client. Choose an empty or new folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(output.parent) as scratch:
        render(document, config, scratch / "made")
        if hash_folder(scratch / "made", Path()) != hash_folder(output, Path()):
            replace_atomically({scratch / "made": output}, scratch)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("name a folder (make client DEST=…)")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generator", description="Make the client from the published document."
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        help="the repository (default: the one that contains this generator)",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("pull", help="fetch the published document, check it, and pin it in spec/")
    command.add_argument(
        "source", nargs="?", help="address of the reference page or the document, or a file (default: the last page)"
    )
    command.add_argument(
        "--force",
        action="store_true",
        help="pin it even if it is invalid or lacks an operation that the overlays use",
    )

    command = commands.add_parser("select", help="keep the operations of some tags and what they use")
    command.add_argument("document", type=Path, nargs="?", help=f"default: {DOCUMENT}")
    command.add_argument("--tag", action="append", help=f"repeatable (default: {REALTIME_TAG})")
    command.add_argument("--output", type=Path, help="a file (default: print)")

    command = commands.add_parser("patch", help="apply overlay documents to a document")
    command.add_argument("document", type=Path)
    command.add_argument("--overlays", type=Path, help=f"a folder of overlay documents (default: {OVERLAYS})")
    command.add_argument("--output", type=Path, help="a file (default: print)")

    command = commands.add_parser("render", help="render a document as Python")
    command.add_argument("document", type=Path)
    command.add_argument("--output", type=Path, required=True, help="the folder to make or replace")

    command = commands.add_parser(
        "client", help="make a client for other groups of the document, in a package with another name"
    )
    command.add_argument("--tag", action="append", required=True, help="the tag of a group; repeatable")
    command.add_argument("--package", required=True, help="the name of the package, for example forge_kvs")
    command.add_argument("--output", type=_folder, required=True, help="the folder in which to make it")
    command.add_argument("--force", action="store_true", help="replace a client that was edited by hand")
    command.add_argument("--check-types", action="store_true", help="refuse one that fails mypy --strict or pyright")

    commands.add_parser("lock", help=f"write {LOCK}: the hashes of all inputs and outputs")
    commands.add_parser(
        "generate", help="run all steps, from the pinned document to the lock; change all outputs or none"
    )
    commands.add_parser("check", help="make everything in a scratch folder and compare it with the repository")

    command = commands.add_parser("publish", help="build wheel and sdist, and upload them to a package index")
    command.add_argument("index", nargs="?", default="", help="the upload address")

    command = commands.add_parser(
        "diff",
        help="say what a change means for users of the client, and the next version",
        description="Each side is a published or derived document, or a git revision with the client committed there.",
    )
    command.add_argument("old", nargs="?", help="default: HEAD, the last commit")
    command.add_argument("new", nargs="?", help="default: the working tree, as `generate` would make it")
    command.add_argument("--json", action="store_true", help="for machines; described in generator/compare/report.py")
    command.add_argument("--output", type=Path, help="a file (default: print)")

    command = commands.add_parser(
        "release", help="set the version, close the changelog, commit and tag; pushes nothing"
    )
    command.add_argument(
        "--bump",
        choices=["auto", *PARTS],
        default="auto",
        help="the part of the version to raise (default: as the comparison with the last release requires)",
    )

    command = commands.add_parser("propose", help="pull, and open or update a pull request with the comparison")
    command.add_argument("source", nargs="?", help="as for `pull`")
    return parser


if __name__ == "__main__":
    # Handle both like Ctrl-C, which undoes incomplete work.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())

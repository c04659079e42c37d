"""`make revisions`: the published revisions and the sibling groups, in a clone.

Pulls, compares, generates and tests the revisions of the Realtime part, forwards and backwards. Then makes a client for
each other group of a document with three groups and of one with 14.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from generator.pipeline.select import REALTIME_TAG
from tests.support.revisions import Document, revision
from tests.support.whole_document import GROUPS, whole_document

ROOT = Path(__file__).parent.parent
ORDER = (1, 2, 3, 2, 1)


def main(tests: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        pinned = json.loads((clone / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
        passed = run(clone, "setup", last=1)
        tested: dict[bytes, int] = {}
        for number in ORDER:
            published = Path(folder) / f"revision-{number}.json"
            published.write_text(json.dumps(revision(pinned, number)), encoding="utf-8")
            print(f"\n## To revision {number}\n", flush=True)
            for command in (f"pull SOURCE={published}", "diff", "generate"):
                passed &= run(clone, *command.split())
            lock = (clone / "generated.lock").read_bytes()
            if lock in tested:
                print(f"Byte for byte the same tree as revision {tested[lock]}, which was tested.\n", flush=True)
            else:
                tested[lock] = number
                passed &= run(clone, "test", f"ARGS={tests}", last=1)
            subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
            commit = ["-c", "user.name=revisions", "-c", "user.email=revisions@localhost", "commit", "--quiet"]
            subprocess.run(["git", *commit, "--allow-empty", "-m", f"Revision {number}"], cwd=clone, check=True)
        for document in (pinned, fourteen_groups(pinned)):
            passed &= make_siblings(clone, Path(folder) / "siblings", document)
        return 0 if passed else 1


def fourteen_groups(pinned: Document) -> Document:
    """Return the pinned document with eleven more groups."""
    document = whole_document(pinned)
    document["paths"] = {
        path: item
        for path, item in document["paths"].items()
        if not any(
            GROUPS[-1] in operation.get("tags", ()) for operation in item.values() if isinstance(operation, dict)
        )
    }
    return document


def make_siblings(clone: Path, folder: Path, document: Document) -> bool:
    """Pin a document, and make a client for each of its groups but Realtime."""
    tags = dict.fromkeys(
        tag
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
        for tag in operation.get("tags", ())
    )
    print(f"\n## A document with {len(tags)} groups\n", flush=True)
    published = folder.with_name("siblings.json")
    published.write_text(json.dumps(document), encoding="utf-8")
    passed = run(clone, "pull", f"SOURCE={published}", last=1)
    for tag in tags:
        if tag != REALTIME_TAG:
            package = f"sibling_{re.sub('[^a-z]+', '_', tag.lower())}"
            passed &= run(clone, "client", f"TAG={tag}", f"PACKAGE={package}", f"DEST={folder}", "FORCE=1", last=1)
    return passed


def run(clone: Path, *arguments: str, last: int = 0) -> bool:
    """Run a make target, and print its output or the last lines of it."""
    # Hide the make that runs this program.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    started = time.monotonic()
    process = subprocess.run(
        ["make", "--silent", *arguments],
        cwd=clone,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    lines = [line for line in process.stdout.splitlines() if line.strip()]
    if process.returncode != 0:
        last = 200
    shown = "\n".join(lines[-last:])
    command = " ".join(re.sub("=/.*/", "=", argument) for argument in arguments)
    print(f"$ make {command}   ({time.monotonic() - started:.1f} s)\n{shown}\n", flush=True)
    return process.returncode == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""`make mutations`: document → verdict → generate → what a call does, as a table.

The documents are the mutated ones of the tests and the published revisions, or those of a folder. The verdict is that
of documents and Python API (griffe), without the typing tests, compared with the pinned document.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from forge_realtime_emulator import Emulator, Settings
from generator.compare.documents import compare
from generator.compare.python_api import compare_apis
from generator.compare.rules import strongest
from generator.document import GeneratorError, read_document
from generator.paths import API, CONFIG, DOCUMENT, DOCUMENT_MODULE, HAND_WRITTEN, OVERLAYS
from generator.pipeline.overlay_fit import check_overlay_fit
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.render import render
from generator.pipeline.select import select
from generator.text import escape_hidden
from tests.generator.changes import CASES
from tests.support.revisions import REVISIONS, revision

Document = dict[str, Any]
ROOT = Path(__file__).parent.parent

# Makes each named call, and prints what became of it. Arguments: the folder of the package, and the emulator's address.
CALLS = """
import sys
sys.path.insert(0, sys.argv[1])
from forge_realtime import ForgeRealtimeError, Invocation, RealtimeClient, RetryPolicy

live = RealtimeClient(sys.argv[2], retry=RetryPolicy(backoff_initial=0)).for_invocation(Invocation("invocation-1"))
calls = {
    "publish": lambda: live.publish("board-42", "x"),
    "publish(context_overrides)": lambda: live.publish("board-42", "x", context_overrides=["issue"]),
    "publish_global": lambda: live.publish_global("board-42", "x"),
    "sign": lambda: live.sign_realtime_token("board-42", {"team": "red"}, permissions=["subscribe"]),
}
found = {}
for name, call in calls.items():
    try:
        attempts = call().attempts
        found.setdefault(f"accepted, {len(attempts)}x", []).append(name)
    except ForgeRealtimeError as error:
        what = f"{type(error).__name__} {error.delivery.name}, {len(error.attempts)}x"
        found.setdefault(what, []).append(name)
    except Exception as error:
        found.setdefault(f"!! bare {type(error).__name__}", []).append(name)
print("; ".join(what if len(names) == len(calls) else f"{what}: {', '.join(names)}" for what, names in found.items()))
"""


def main(folder: str | None = None) -> int:
    """Print the table. Exit code 1 if an exception that is not the client's leaves a call that the fit allowed."""
    pinned = read_document(ROOT / DOCUMENT)
    base = patch(select(pinned), overlay_files(ROOT / OVERLAYS))
    documents = list(own_documents(pinned, base) if folder is None else documents_of(Path(folder)))
    started = time.monotonic()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(2) as pool:
        old = Path(scratch) / "base"
        make_package(base, old)
        folders = [Path(scratch) / str(number) for number in range(len(documents))]
        rows = pool.map(partial(row, base, old), [document for _, document in documents], folders)
        print("| document | verdict | generate | what a call does |\n|---|---|---|---|")
        for (name, _), (verdict, generated, called) in zip(documents, rows, strict=True):
            print(f"| {' | '.join(map(_cell, (name, verdict, generated, called)))} |", flush=True)
            wrong += generated.startswith("ok") and "!! bare" in called
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"\n{len(documents)} documents in {time.monotonic() - started:.0f} s, at most {memory // 1024} MB per process"
    )
    return 1 if wrong else 0


def own_documents(pinned: Document, base: Document) -> Iterator[tuple[str, Document | GeneratorError]]:
    """Yield the published revisions, and what the cases of the tests make of the derived document."""
    for number in REVISIONS:
        yield f"revision {number}", revision(pinned, number)
    last = patch(select(revision(pinned, REVISIONS[-1])), overlay_files(ROOT / OVERLAYS))
    assert base.keys() == last.keys()
    for name, case in CASES.items():
        yield name, case.documents(last)[1]


def documents_of(folder: Path) -> Iterator[tuple[str, Document | GeneratorError]]:
    """Yield the documents of a folder, or why one cannot be read."""
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".json", ".yaml", ".yml"}):
        try:
            yield path.name, read_document(path)
        except GeneratorError as error:
            yield path.name, error


def row(base: Document, old: Path, document: Document | GeneratorError, folder: Path) -> tuple[str, str, str]:
    """Return verdict, result of `generate`, and result of the calls."""
    try:
        if isinstance(document, GeneratorError):
            raise document
        is_derived = "forgeProxyAuthorization" in document.get("components", {}).get("securitySchemes", {})
        derived = document if is_derived else patch(select(document), overlay_files(ROOT / OVERLAYS))
        make_package(derived, folder)
    except GeneratorError as error:
        return "none", f"stops: {error}", "no client is made"
    comparison = compare(base, derived)
    effects = [change.rule.effect for change in comparison.changes]
    verdict = str(strongest([*effects, compare_apis(old, folder, comparison.read_only).effect]))
    generated = "ok"
    try:
        unsupported = check_overlay_fit(derived, folder / "forge_realtime", ROOT / HAND_WRITTEN)
        if unsupported:
            generated = f"ok, without {', '.join(unsupported)}"
    except GeneratorError as error:
        generated = f"stops: {error}"
    return verdict, generated, make_calls(derived, folder)


def make_package(derived: Document, folder: Path) -> None:
    """Render a derived document, and combine it with the hand-written package."""
    package = folder / HAND_WRITTEN.name
    shutil.copytree(ROOT / HAND_WRITTEN, package, ignore=shutil.ignore_patterns("__pycache__"))
    render(derived, ROOT / CONFIG, package / API.name)
    shutil.copy(ROOT / DOCUMENT_MODULE, package)


def make_calls(derived: Document, folder: Path) -> str:
    """Make the named calls on an emulator of the document."""
    try:
        emulator = Emulator(document=derived, settings=Settings(limit=None))
    except Exception as error:  # noqa: BLE001 (whatever it is belongs into the table)
        return f"the emulator refuses the document: {type(error).__name__}: {error}"
    # With subscribers, so that there is an event id.
    with emulator, emulator.subscribe("board-42"), emulator.subscribe("board-42", is_global=True):
        command = [sys.executable, "-c", CALLS, str(folder), emulator.url]
        process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    if process.returncode:
        return f"import fails: {process.stderr.strip().splitlines()[-1]}"
    return process.stdout.strip()


def _cell(text: str) -> str:
    line = escape_hidden(text.replace(str(ROOT) + "/", "")).replace("\n", " ").replace("|", r"\|")
    return line if len(line) <= 300 else f"{line[:300]}…"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

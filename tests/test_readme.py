"""The README: its Python examples run against the emulator, and its numbers and names are those of the code."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from forge_realtime import RealtimeClient, RetryPolicy
from forge_realtime_emulator import Emulator
from forge_realtime_emulator._platform.contexts import OVERRIDES, Context
from tests.support.features import needs
from tests.support.pages import run_example

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
# The output of each example, or a part of it.
PRINTS = [
    "PublishResult(event_id='",
    '{"type": "subscribed"}\nhello\n',
    '{"moved":7}\n[503, 200]\n',
    "1 passed",
    "",
    "None\n",
    "",
    "b'moved'\n",
    "",
    '"msg": "the board is open"',
    "StreamReport(updates=3, sent=3, ",
    "",
    "",
    "event-1\n",
    "",
    "",
]
# Arguments that not every revision of the document has.
ARGUMENTS = ("context_overrides", "permissions")


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTS) == README.count("```python")


@contextmanager
def listening(emulator: Emulator) -> Iterator[None]:
    """Listen as in another terminal, until the example publishes an event."""
    [command] = re.findall(r"^forge-realtime (listen .*)$", README.partition("## Develop")[0], re.MULTILINE)
    arguments = [*command.split(), "--url", emulator.url, "--count", "1", "--timeout", "60"]
    with subprocess.Popen(
        [sys.executable, "-m", "forge_realtime", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Listening to the channel board-42")
        yield
        output, _ = process.communicate()
    assert output.endswith('  {"moved":7}\n')


@pytest.mark.parametrize(
    ("example", "prints"),
    [
        pytest.param(example, prints, marks=needs(*(name for name in ARGUMENTS if f"{name}=" in example)))
        for example, prints in zip(EXAMPLES, PRINTS, strict=True)
    ],
)
def test_example(example: str, prints: str, tmp_path: Path) -> None:
    with Emulator() as emulator, listening(emulator) if example is EXAMPLES[0] else nullcontext():
        assert prints in run_example(example, tmp_path, emulator.url)


def test_stated_defaults_of_retries_are_those_of_the_policy() -> None:
    policy = RetryPolicy()
    for stated in (
        f"{policy.deadline:g} s for a whole call with all its waits, {policy.attempt_timeout:g} s for one attempt",
        f"{policy.max_attempts} attempts, random waits",
        f"bound doubles from {policy.backoff_initial:g} s up to {policy.backoff_max:g} s",
        f'`"{policy.delivery}"`, the default, sends an `UNKNOWN` event again',
    ):
        assert stated in " ".join(README.split())


def test_context_table_lists_the_keys_and_defaults_of_the_emulator() -> None:
    table = README.partition("| key | what it is | at first |\n|---|---|---|\n")[2].partition("\n\n")[0]
    keys, texts, defaults = zip(*(row.strip("| ").split(" | ") for row in table.splitlines()), strict=True)
    context = Context().to_json()
    assert re.findall(r"`(\w+)`", " ".join(keys)) == [
        "installation",
        "module",
        "moduleType",
        "context",
        "account",
        "fromUi",
    ]
    assert re.findall(r"`(.+?)`", " ".join(defaults)) == [
        value if isinstance(value, str) else json.dumps(value) for value in context.values()
    ]
    assert re.findall(r"`(\w+)`", next(text for text in texts if "board" in text)) == [*OVERRIDES]
    emulator = Emulator()
    [call] = re.findall(r"`(emulator\.register\(.*?\))`", README)
    eval(call, {"emulator": emulator})
    as_json = re.findall(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[0]
    emulator.register(**json.loads(as_json))


def test_copy_commands_copy_the_module_for_the_front_end(tmp_path: Path) -> None:
    commands = re.findall(r"^cp .*/frontend/\S+ .*$", README, re.MULTILINE)
    assert len(commands) == 2
    hook = {"use-forge-stream.js", "use-forge-stream.d.ts"}
    for command in commands:
        folder = tmp_path / command.rpartition(" ")[2]
        folder.mkdir(parents=True)
        run = ["sh", "-c", command.replace("$(.venv/bin/python", "$(python")]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(run, cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
        assert {file.name for file in folder.iterdir()} - hook == {"streams.js", "streams.d.ts"}


def test_shown_envelope_is_the_one_of_a_stream() -> None:
    [shown] = re.findall(r'^{"forgeStream".*}$', README, re.MULTILINE)
    envelope = json.loads(shown)
    table = README.partition("| key | what it is |\n|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*envelope]
    with Emulator() as emulator, emulator.subscribe("chat") as page, RealtimeClient(emulator.url) as realtime:
        with realtime.for_invocation({"x-forge-invocation-id": "invocation-123"}).stream("chat") as stream:
            stream.send("Hel")
            stream.flush()
        sent = page.receive(timeout=5).payload
    assert sent == shown.replace(envelope["stream"], json.loads(sent)["stream"])


def test_stated_defaults_of_streams_are_those_of_the_client() -> None:
    defaults = {name: each.default for name, each in inspect.signature(RealtimeClient.stream).parameters.items()}
    for stated in (
        f"`interval` seconds ({defaults['interval']:g})",
        f"`max_bytes` ({defaults['max_bytes'] // 1024} KiB)",
        f"`deadline` seconds ({defaults['deadline']:g})",
        f"`max_pending` updates ({defaults['max_pending']:,})",
    ):
        assert stated in " ".join(README.split())


def test_folder_table_lists_the_folders_of_the_repository() -> None:
    folders = re.findall(r"^\| `([a-z_/]+)/` \|", README, re.MULTILINE)
    assert all((ROOT / folder).is_dir() for folder in folders)
    made = {"dist"}
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"} - made
    assert top == {folder.partition("/")[0] for folder in folders}


def test_named_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)

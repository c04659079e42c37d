"""`exec`, run as a process: the emulator of a command, its signals, its terminal and what it leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from forge_realtime_emulator._cli import child as child_module
from forge_realtime_emulator._cli.child import Child
from tests.cli.conftest import VARIABLES, Run

if sys.platform == "win32":
    pytest.skip("There are no process groups.", allow_module_level=True)

EXEC = [sys.executable, "-m", "forge_realtime", "exec"]
# What a busy machine takes for a process to start, in seconds.
PATIENCE = 30.0


@contextmanager
def executing(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `exec` in a process."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = subprocess.Popen(
        [*EXEC, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str) -> tuple[int, str, str]:
    with executing(*arguments) as process:
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; whoever adopted it may not look.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_command_has_an_emulator_that_ends_with_it(tmp_path: Path) -> None:
    config = tmp_path / "settings.json"
    config.write_text('{"strict": true, "limit": 1, "token_lifetime": 7}')
    code = """
import os, sys, urllib.request
url = os.environ["FORGE_EGRESS_PROXY_URL"]
print(url, sys.argv[1:])
print(urllib.request.build_opener().open(f"{url}/_emulator/state").read().decode())
sys.exit(7)
"""
    # Options win over the file.
    options = ["--config", str(config), "--no-strict", "--limit", "0"]
    code_, output, errors = run(*options, "--", sys.executable, "-c", code, "--", "-h", "a b")
    assert (code_, errors) == (7, "")
    first, state = output.splitlines()
    url, _, arguments = first.partition(" ")
    assert arguments == "['--', '-h', 'a b']"
    settings = json.loads(state)["settings"]
    assert (settings["strict"], settings["limit"], settings["token_lifetime"]) == (False, None, 7)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))


def test_unknown_command_says_what_to_check() -> None:
    said = r"Error: There is no command 'no\x1bsuch', or the interpreter that it needs is missing."
    assert run("no\x1bsuch") == (127, "", f"{said} Check the spelling and PATH.\n")


def test_missing_command_is_wrong_usage(run_at: Run) -> None:
    result = run_at(None, "exec", "--limit", "0")
    assert (result.exit_code, "Missing argument '[--] COMMAND [ARGS]...'." in result.stderr) == (2, True)


def test_exit_code_is_that_of_a_shell() -> None:
    for script, code in (("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
        with Child() as child:
            assert child.run(["sh", "-c", script], os.environ) == code
    with (
        pytest.raises(click.ClickException, match="'/' cannot be executed: Permission denied") as raised,
        Child() as child,
    ):
        child.run(["/"], os.environ)
    assert raised.value.exit_code == 126


def test_signal_before_the_command_prevents_its_start() -> None:
    with Child() as child:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as raised:
            child.run(["no such command"], {})
    assert raised.value.code == 143


def test_ignored_signal_stays_ignored() -> None:
    """The command nohup ignores SIGHUP for a command and for what it starts."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Child() as child:
            assert child.run(["sh", "-c", "kill -HUP $$; exit 3"], os.environ) == 3
    finally:
        signal.signal(signal.SIGHUP, former)


COUNTS = """
import os, signal, sys, time
got = []
numbers = {numbers}
for number in numbers:
    signal.signal(number, lambda number, _: (got.append(int(number)), os.write(1, b"%d\\n" % number)))
print("ready", flush=True)
until = time.monotonic() + 30
while len({{*got}}) < len(numbers) and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(0.2)
print(got)
sys.exit(3)
"""


def test_signals_reach_the_command_once() -> None:
    numbers = [int(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)]
    with executing(sys.executable, "-c", COUNTS.format(numbers=numbers)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            assert process.stdout.readline() == f"{number}\n"
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (3, f"{numbers}\n", "")


def test_signal_that_another_thread_takes_reaches_the_command(tmp_path: Path) -> None:
    """The kernel may hand a signal to any thread, and then the main thread's system calls are not interrupted."""
    os.mkfifo(tmp_path / "started")

    def take_signal() -> None:
        (tmp_path / "started").read_bytes()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=take_signal)
    with Child() as child:
        thread.start()
        code = child.run(["sh", "-c", f"echo > {tmp_path}/started; exec sleep 10"], os.environ)
    thread.join()
    assert code == 143


def test_command_that_ends_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_PATIENCE", 0.2)
    script = f"sleep 60 & echo $! > {tmp_path}/pid; trap '' TERM; sh -c 'kill -STOP $$' & echo $! >> {tmp_path}/pid"
    with Child() as child:
        assert child.run(["sh", "-c", script], os.environ) == 0
    pids = [int(line) for line in (tmp_path / "pid").read_text().split()]
    assert [pid for pid in pids if is_running(pid)] == []


def test_command_that_a_signal_ends_leaves_no_process_behind() -> None:
    with executing("--", "sh", "-c", "sleep 60 & echo $!; echo $$; sleep 60; true") as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        # The pipe would stay open if a process were left.
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (143, "")
    assert [pid for pid in pids if is_running(pid)] == []


def test_unread_log_holds_up_neither_calls_nor_the_end() -> None:
    code = """
import json, os, urllib.request
headers = {"forge-proxy-authorization": "Forge id=i", "Content-Type": "application/json"}
body = json.dumps({"name": "x" * 100, "payload": "x"}).encode()
url = os.environ["FORGE_EGRESS_PROXY_URL"] + "/forge/realtime/v1/publish"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(400):
    opener.open(urllib.request.Request(url, body, headers), timeout=10).read()
print("done")
"""
    with executing("--limit", "0", "--log", "json", "--", sys.executable, "-c", code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        # Nobody has read standard error, and its pipe holds 64 KiB.
        assert process.wait(timeout=PATIENCE) == 0


def test_terminal_is_the_commands() -> None:
    """Ctrl-C reaches the command once and alone, and it may read from the terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    code = f"name = input()\n{COUNTS.format(numbers=[2])}".replace('"ready"', "name")
    # Opening it makes it the terminal of the new session.
    start = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", start, *EXEC, "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        os.write(ours, b"Ada\n")
        assert read_until(ours, b"Ada\r\nAda\r\n").endswith(b"Ada\r\nAda\r\n")
        # Ctrl-Z stops the command. There is no shell to stop exec for, so it continues at once.
        os.write(ours, b"\x1a")
        assert read_until(ours, b"^Z") == b"^Z"
        os.write(ours, b"\x03")
        assert read_until(ours, b"]\r\n") == b"^C2\r\n[2]\r\n"
        assert process.wait(timeout=PATIENCE) == 3
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(file: int, end: bytes) -> bytes:
    received, until = b"", time.monotonic() + PATIENCE
    while not received.endswith(end) and time.monotonic() < until:
        if select.select([file], [], [], 0.1)[0]:
            try:
                received += os.read(file, 1000)
            except OSError:
                # Nobody has it open any more.
                break
    return received

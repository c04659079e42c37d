"""The commands of the client and of the emulator are one command line, whatever is installed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import forge_realtime
from forge_realtime_emulator import Emulator, Settings
from tests.cli.conftest import VARIABLES, Run

COMMAND = str(Path(sys.executable).with_name("forge-realtime"))
PACKAGE = "forge_realtime_emulator"
OF_THE_CLIENT = ["completion", "doctor", "probe", "publish", "publish-global", "sign-token"]
OF_THE_EMULATOR = ["emulate", "exec", "fail", "init", "listen"]


def process(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env={**given, **environment}
    )


def without(
    *missing: str, module: str = "forge_realtime", arguments: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Run a module as if packages were not installed."""
    # A module that is None in sys.modules cannot be imported.
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({missing!r})); sys.argv[1:] = {list(arguments)!r}; "
    code += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return process(sys.executable, "-c", code)


def commands(help_: str) -> list[str]:
    return [line.split()[0] for line in help_.partition("Commands:\n")[2].splitlines()]


def test_help_lists_all_commands_and_exit_codes(run: Run) -> None:
    result = run("--help")
    assert commands(result.stdout) == sorted([*OF_THE_CLIENT, *OF_THE_EMULATOR])
    for line in (
        "0  done",
        "1  failed; an event that was to be published did not arrive",
        "2  wrong usage; nothing was sent",
        "3  an event may have arrived, but there was no clear response",
    ):
        assert line in result.stdout
    # No description is truncated in a terminal of the usual width, which click's runner makes wider.
    in_terminal = process(COMMAND, "--help", COLUMNS="80").stdout
    assert "..." not in in_terminal.partition("Commands:")[2]
    assert commands(in_terminal) == commands(result.stdout)


@pytest.mark.parametrize("command", [*OF_THE_CLIENT, *OF_THE_EMULATOR])
def test_every_command_and_option_has_help(run: Run, command: str) -> None:
    result = run(command, "-h")
    assert (result.exit_code, run(command, "--help").output) == (0, result.output)
    usage, _, options = result.stdout.partition("Options:\n")
    assert f" {command} " in usage
    starts = [line for line in options.splitlines() if line.startswith("  -")]
    assert starts[-1].startswith("  -h, --help ")
    for line in starts:
        following = options.partition(f"{line}\n")[2]
        assert len(line.split("  ")) > 2 or following.startswith(" " * 10), line


def test_help_names_all_settings(run: Run) -> None:
    listed = " ".join(run("emulate", "--help").stdout.split()).partition("The settings are ")[2].partition(".")[0]
    assert listed.replace(" and ", ", ").split(", ") == [setting.name for setting in fields(Settings)]


def test_version_and_unknown_command(run: Run) -> None:
    assert run("--version").stdout.strip().endswith(f"version {forge_realtime.__version__}")
    result = run("subscribe")
    assert (result.exit_code, "No such command 'subscribe'" in result.stderr) == (2, True)


def test_installed_command_and_module_are_the_same(own: Emulator) -> None:
    environment = {"FORGE_EGRESS_PROXY_URL": own.url, "FORGE_REALTIME_INVOCATION": "i"}
    for command in ([COMMAND], [sys.executable, "-m", "forge_realtime"]):
        run = process(*command, "publish", "c", "x", **environment)
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "Nobody was subscribed.\n")


def test_emulator_module_has_its_own_commands() -> None:
    run = process(sys.executable, "-m", "forge_realtime_emulator", "--help")
    assert commands(run.stdout) == OF_THE_EMULATOR


HEAVY = ("starlette", "uvicorn", "websockets", "jwt", "openapi_schema_validator", "httptools")


def test_help_and_completion_work_without_emulator_packages() -> None:
    run = without(*HEAVY, arguments=("--help",))
    assert (run.returncode, run.stderr) == (0, "")
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); "
    code += "from forge_realtime._cli.commands import cli; "
    code += f"[cli.main([name, '-h'], standalone_mode=False) for name in {OF_THE_EMULATOR!r}]"
    run = process(sys.executable, "-c", code)
    assert (run.returncode, run.stderr, run.stdout.count("Usage: ")) == (0, "", len(OF_THE_EMULATOR))
    completing = {"_FORGE_REALTIME_COMPLETE": "bash_complete", "COMP_WORDS": "forge-realtime em", "COMP_CWORD": "1"}
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); sys.argv[0] = 'forge-realtime'; "
    code += "from forge_realtime.__main__ import main; main()"
    run = process(sys.executable, "-c", code, **completing)
    assert (run.stdout, run.stderr) == ("plain,emulate\n", "")


@pytest.mark.parametrize(
    ("missing", "module", "arguments", "said"),
    [
        (
            "click",
            "forge_realtime",
            ("--help",),
            "the command line needs the cli extra: pip install 'forge-realtime[cli]'",
        ),
        (
            "click",
            "forge_realtime",
            ("emulate",),
            "forge-realtime emulate needs the emulator extra: pip install 'forge-realtime[emulator]'",
        ),
        (
            "uvicorn",
            "forge_realtime",
            ("emulate",),
            "forge-realtime emulate needs the emulator extra: pip install 'forge-realtime[emulator]'",
        ),
        (
            "websockets",
            "forge_realtime",
            ("listen", "c", "--url", "http://localhost"),
            "forge-realtime listen needs the emulator extra: pip install 'forge-realtime[emulator]'",
        ),
        (
            "click",
            "forge_realtime_emulator",
            ("--help",),
            "the emulator needs the emulator extra: pip install 'forge-realtime[emulator]'",
        ),
    ],
)
def test_error_for_missing_extra_says_what_to_install(
    missing: str, module: str, arguments: tuple[str, ...], said: str
) -> None:
    run = without(missing, module=module, arguments=arguments)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"Error: {said}\n")


def test_other_missing_modules_are_not_hidden() -> None:
    for missing in ("httpx", "click.shell_completion"):
        run = without(missing, arguments=("--help",))
        assert f"ModuleNotFoundError: import of {missing} halted" in run.stderr


def test_broken_command_does_not_break_others(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    entry_points = "[forge_realtime.commands]\nwatch = forge_realtime_of_another_day:watch\n"
    (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    assert "watch           (cannot be loaded)\n" in run("--help").stdout
    result = run("watch", "c", "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: watch cannot be loaded: No module named 'forge_realtime_of_another_day'. Reinstall it: "
    )
    assert run("publish", "c", "x", "--invocation", "i").exit_code == 0


def test_vendored_copy_has_client_commands(own: Emulator, tmp_path: Path) -> None:
    package = Path(forge_realtime.__file__ or "").parent
    (tmp_path / "site").mkdir()
    for installed in package.parent.iterdir():
        # Everything but this project and its metadata.
        if not installed.name.startswith("forge_realtime"):
            (tmp_path / "site" / installed.name).symlink_to(installed)
    shutil.copytree(package, tmp_path / "app" / "vendored" / "forge_realtime")
    # -S hides the packages of the environment.
    command = [sys.executable, "-S", "-m", "vendored.forge_realtime"]
    path = {"PYTHONPATH": os.pathsep.join(str(tmp_path / name) for name in ("app", "site"))}
    run = process(*command, "--help", **path)
    assert run.stdout.startswith("Usage: python -m vendored.forge_realtime ")
    assert commands(run.stdout) == OF_THE_CLIENT
    assert process(*command, "--version", **path).stdout.strip().endswith(forge_realtime.__version__)
    run = process(*command, "publish", "c", "x", "--invocation", "i", "--url", own.url, **path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "Nobody was subscribed.\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_valid(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_FORGE_REALTIME_COMPLETE={shell}_complete" in result.stdout
    assert "forge-realtime" in result.stdout
    if program := shutil.which(shell):
        checked = subprocess.run([program, "-n"], check=False, input=result.stdout, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(
    shutil.which("bash") is None, reason="not installed: bash. To run these tests: apt-get install bash"
)
def test_bash_completes_commands_and_options() -> None:
    script = """
        eval "$(forge-realtime completion bash)"
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _forge_realtime_completion forge-realtime
            echo "${COMPREPLY[@]}"
        }
        complete_words forge-realtime publi
        complete_words forge-realtime lis
        complete_words forge-realtime fail --answer n
        complete_words forge-realtime sign-token --claims-
    """
    path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
    run = process("bash", "--norc", "-c", script, PATH=path)
    assert run.stdout.splitlines() == ["publish publish-global", "listen", "not-json", "--claims-file"], run.stderr


EVIL = "\x1b[2J\x9b\u202e\x7f"


@pytest.fixture
def _logging() -> Iterator[None]:
    """Undo what `emulate` and `exec` do to this process."""
    root, of_emulator, handler = logging.getLogger(), logging.getLogger(PACKAGE), signal.getsignal(signal.SIGTERM)
    handlers, level = [*root.handlers], of_emulator.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    of_emulator.setLevel(level)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("_logging")
def test_no_command_lets_its_arguments_control_the_terminal(run: Run, own: Emulator, tmp_path: Path) -> None:
    settings, contexts = tmp_path / "settings.json", tmp_path / "contexts.json"
    settings.write_text(json.dumps({EVIL: 1}))
    contexts.write_text(json.dumps({"invocations": {EVIL: {EVIL: 1}}}))
    identity = ("--invocation", "i")
    for arguments in (
        (EVIL,),
        (f"--{EVIL}",),
        ("publish", EVIL, EVIL, *identity),
        ("publish", "c", "x", "y", EVIL, *identity),
        ("publish", "c", "x", *identity, "--context-override", EVIL),
        ("publish", "c", "x", "--invocation", EVIL),
        ("publish-global", "c", "x", "--installation", EVIL, "--url", EVIL),
        ("sign-token", "c", EVIL, *identity),
        ("doctor", EVIL),
        ("doctor", "--url", f"http://{EVIL}"),
        ("probe", EVIL),
        ("completion", EVIL),
        ("listen", EVIL, "--timeout", "1"),
        ("listen", "c", EVIL),
        ("fail", "--status", "500", "--channel", EVIL),
        ("fail", "--status", "500", "--operation", EVIL),
        ("fail", EVIL),
        ("emulate", EVIL),
        ("emulate", "--config", EVIL),
        ("emulate", "--config", str(settings)),
        ("emulate", "--contexts", str(contexts)),
        ("emulate", "--origin", f"http://{EVIL}"),
        ("exec", "--config", str(settings), "true"),
        ("exec", "--port", EVIL, "true"),
    ):
        printed = run(*arguments).output
        assert printed, arguments
        assert all(line.isprintable() for line in printed.replace("\t", " ").split("\n")), arguments
    own.reset()


def test_error_is_what_the_terminal_can_show() -> None:
    for arguments in (("doctor", "✓"), ("exec", "✓")):
        run = process(COMMAND, *arguments, PYTHONIOENCODING="ascii")
        assert run.stderr.isascii()
        assert r"\u2713" in run.stderr

"""`forge-realtime init`: its services pass their tests, start as in their image, and follow the platform's rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from packaging.requirements import Requirement
from ruamel.yaml import YAML

import forge_realtime
from forge_realtime._cli.commands import cli
from forge_realtime_emulator import Emulator
from tests.support.new_services import (
    FRAMEWORKS,
    Instruction,
    free_port,
    make_service,
    read_dockerfile,
    started,
    variables,
)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_service(tmp_path_factory.mktemp("services"), request.param)


@pytest.fixture(scope="module")
def fastapi_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_service(tmp_path_factory.mktemp("services"), "fastapi")


def init(*arguments: str | Path) -> Result:
    return CliRunner(catch_exceptions=False).invoke(cli, ["init", *map(str, arguments)])


def help_of(command: str) -> str:
    return CliRunner().invoke(cli, [command, "--help"]).output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def test_service_passes_its_tests(service: Path) -> None:
    # Loading all plugins of this environment takes longer than the tests.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORGE_", "PYTEST_"))}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "forge_realtime"],
        cwd=service,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^\d+ passed in", run.stdout, re.MULTILINE)


def test_start_command_serves_as_user_1000_and_ends_with_its_answer(service: Path, realtime_emulator: Emulator) -> None:
    emulator = realtime_emulator
    with started(service, emulator.url, free_port()) as running:
        before = contents(running.folder)
        if os.getuid() == 0:
            status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="utf-8").splitlines()
            ids = {tuple(line.split()[1:]) for line in status if line.startswith(("Uid:", "Gid:", "Groups:"))}
            assert ids == {("1000",) * 4, ()}
        with emulator.subscribe("messages") as page:
            response = running.post("/messages", {"text": "hello"})
            assert (response.status_code, response.json()) == (202, {"heard": True})
            # What invokeService() needs to resolve.
            assert response.headers["content-type"] == "application/json"
            assert page.receive().payload == '{"text":"hello"}'
        # The model takes 0.05 seconds for a word.
        handle = running.post("/answers", {"text": "Why? " * 20}).json()
        with emulator.subscribe(handle["channel"], is_global=True, token=handle["token"]) as page:
            assert not any(stream.ended for stream in emulator.streams)
            log = running.stop()
            page.receive()
        assert contents(running.folder) == before
    [stream] = emulator.streams
    assert stream.value.endswith("a few words at a time. ")
    assert (stream.ended, stream.error, stream.stopped, stream.gaps) == (True, None, None, ())
    assert all({"ts", "level", "msg"} <= line.keys() for line in log)
    [answered] = [line for line in log if line["msg"].startswith("Answered: ")]
    assert (answered["level"], answered["forge_invocation"]) == ("INFO", "attributes")


def dockerfile_problems(text: str) -> list[str]:
    """Return what is wrong with a Dockerfile, by the rules of hadolint that matter here and those of the platform."""
    instructions = read_dockerfile(text)
    last = instructions[-1].stage
    of_image = [one for one in instructions if one.stage in {*_ancestors(instructions, last), last}]
    named = {one.argument.split()[-1] for one in instructions if one.name == "FROM" and " AS " in one.argument.upper()}
    bases = [one.argument.split()[0] for one in instructions if one.name == "FROM"]
    users = [one.argument for one in instructions if one.name == "USER" and one.stage == last]
    starts = [one for one in instructions if one.name in {"CMD", "ENTRYPOINT"}]
    runs = [one.argument for one in instructions if one.name == "RUN"]
    return [
        *(f"base: {base}" for base in bases if base not in named and not re.fullmatch(r"python:3\.\d+-slim", base)),
        *(f"user: {user}" for user in (users[-1:] or ["root"]) if user != "1000:1000"),
        *(f"shell: {one.argument}" for one in starts if one.exec_form is None),
        *(f"start: {one.name}" for one in starts if one.exec_form and one.exec_form[0] in {"sh", "bash", "/bin/sh"}),
        *("start: missing" for _ in [0] if not any(one.stage == last for one in starts)),
        *("ADD" for one in instructions if one.name == "ADD"),
        *(f"cache: {run}" for run in runs if "pip install" in run and "--no-cache-dir" not in run),
        *(f"lists: {run}" for run in runs if "apt-get install" in run and "rm -rf /var/lib/apt/lists" not in run),
        *(f"relative: {one.argument}" for one in instructions if one.name == "WORKDIR" and one.argument[0] != "/"),
        *(
            f"variable: {name}"
            for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
            if variables(of_image).get(name) != "1"
        ),
    ]


def _ancestors(instructions: list[Instruction], stage: int) -> Iterator[int]:
    bases = [one.argument.split() for one in instructions if one.name == "FROM"]
    for number in range(stage):
        if bases[number][-1] == bases[stage][0]:
            yield number
            yield from _ancestors(instructions, number)


def test_dockerfile_follows_the_rules(fastapi_service: Path) -> None:
    assert dockerfile_problems((fastapi_service / "Dockerfile").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.13-slim", "python:latest", "base: python:latest"),
        ("python:3.13-slim", "python", "base: python"),
        ("python:3.13-slim", "python:3-slim", "base: python:3-slim"),
        ("USER 1000:1000", "USER 1000", "user: 1000"),
        ("USER 1000:1000", "", "user: root"),
        ('CMD ["python", "main.py"]', "CMD python main.py", "shell: python main.py"),
        ('CMD ["python", "main.py"]', 'CMD ["sh", "-c", "python main.py"]', "start: CMD"),
        ('CMD ["python", "main.py"]', "", "start: missing"),
        ("COPY requirements.txt", "ADD requirements.txt", "ADD"),
        (" --no-cache-dir", "", "cache: pip install"),
        ("RUN pip", "RUN apt-get install -y gcc && pip", "lists: apt-get install"),
        ("WORKDIR /app", "WORKDIR app", "relative: app"),
        ("PYTHONDONTWRITEBYTECODE=1 ", "", "variable: PYTHONDONTWRITEBYTECODE"),
        ("PYTHONUNBUFFERED=1", "", "variable: PYTHONUNBUFFERED"),
        ("FROM base AS service", "FROM python:3.13-slim", "variable: PYTHONUNBUFFERED"),
    ],
)
def test_broken_rule_of_dockerfile_is_found(fastapi_service: Path, old: str, new: str, problem: str) -> None:
    text = (fastapi_service / "Dockerfile").read_text(encoding="utf-8")
    assert old in text
    assert any(found.startswith(problem) for found in dockerfile_problems(text.replace(old, new)))


# The keys of Atlassian's schema (@forge/manifest 13.7.0) that a manifest with a container may have.
KEYS = {
    "": {"app", "environment", "modules", "resources", "services"},
    "app": {"id", "runtime"},
    "app.runtime": {"name"},
    "environment": {"variables"},
    "modules": {"jira:issuePanel", "endpoint"},
    "modules.jira:issuePanel": {"key", "title", "icon", "resource", "resolver"},
    "modules.jira:issuePanel.resolver": {"endpoint"},
    "modules.endpoint": {"key", "service"},
    "resources": {"key", "path"},
    "services": {"key", "containers", "scaling", "tunnel"},
    "services.scaling": {"min", "max"},
    "services.tunnel": {"port"},
    "services.containers": {"key", "tag", "health", "resources", "tunnel"},
    "services.containers.resources": {"cpu", "memory"},
    "services.containers.health": {"type", "route"},
    "services.containers.health.route": {"path"},
    "services.containers.tunnel": {"docker"},
    "services.containers.tunnel.docker": {"build", "ports", "environment", "develop"},
    "services.containers.tunnel.docker.build": {"context", "dockerfile"},
    "services.containers.tunnel.docker.develop": {"watch"},
    "services.containers.tunnel.docker.develop.watch": {"path", "action", "target"},
}


def unknown_keys(value: Any, place: str = "") -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        for key, inner in one.items() if isinstance(one, dict) else ():
            name = f"{place}.{key}".removeprefix(".")
            if key not in KEYS[place]:
                yield name
            elif isinstance(inner, (dict, list)):
                yield from unknown_keys(inner, name)


def test_manifest_follows_the_platform(service: Path) -> None:
    manifest = read_yaml(service / "manifest.yml")
    assert list(unknown_keys(manifest)) == []
    assert list(unknown_keys({"services": [{"port": 1}]})) == ["services.port"]
    [panel], [endpoint] = manifest["modules"]["jira:issuePanel"], manifest["modules"]["endpoint"]
    [resource], [described] = manifest["resources"], manifest["services"]
    [container] = described["containers"]
    for key in (described["key"], container["key"]):
        assert key == service.name
        assert re.fullmatch("[a-z]([a-z0-9-]{0,17}[a-z0-9])?", key)
    assert panel["resource"] == resource["key"]
    assert panel["resolver"]["endpoint"] == endpoint["key"]
    assert endpoint["service"] == described["key"]
    assert container["tag"] == "${TAG}"
    assert {"APP_ID", "TAG"} == {*manifest["environment"]["variables"]}
    # The page is where `npm run build` puts it.
    package = json.loads((service / "frontend/package.json").read_text(encoding="utf-8"))
    assert resource["path"] == "frontend/" + package["scripts"]["build"].rpartition("--outdir=")[2]


def test_manifest_dockerfile_compose_and_service_agree(service: Path) -> None:
    [described] = read_yaml(service / "manifest.yml")["services"]
    [container] = described["containers"]
    docker = container["tunnel"]["docker"]
    image = {one.name: one.argument for one in read_dockerfile((service / "Dockerfile").read_text(encoding="utf-8"))}
    compose = read_yaml(service / "compose.yml")["services"]
    port = image["EXPOSE"]
    assert docker["ports"] == [f"{port}:{port}"]
    assert docker["environment"] == [f"SERVER_PORT={port}"]
    assert described["tunnel"] == {"port": int(port)}
    assert f'"SERVER_PORT", "{port}"' in (service / "service/main.py").read_text(encoding="utf-8")
    routes = (service / "service" / ("views.py" if "django" in service.name else "app.py")).read_text(encoding="utf-8")
    health = container["health"]["route"]["path"]
    assert f'@app.get("{health}")' in routes or f'path("{health[1:]}"' in routes
    assert (service / docker["build"]["context"] / docker["build"]["dockerfile"]).is_file()
    source, requirements = docker["develop"]["watch"]
    assert (service / source["path"] / "main.py").is_file()
    assert (source["target"], source["action"]) == (image["WORKDIR"], "sync+restart")
    assert (service / requirements["path"]).is_file()
    # Compose runs it as the platform does, with the emulator in the sidecar's place.
    assert compose["service"] == {
        "build": {"context": ".", "target": "service"},
        "network_mode": "service:sidecar",
        "environment": {"SERVER_PORT": port, "FORGE_EGRESS_PROXY_URL": "http://localhost:7072"},
        "user": "1000:1000",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "5m",
    }
    assert compose["sidecar"]["ports"] == ["127.0.0.1:7072:7072", f"127.0.0.1:{port}:{port}"]
    name, *options = compose["sidecar"]["command"]
    assert name == "forge-realtime"
    assert options == [
        "emulate",
        "--host=0.0.0.0",
        "--port=7072",
        f"--service=http://localhost:{port}",
        "--origin=http://127.0.0.1:5173",
    ]
    known = help_of("emulate")
    assert all(option.partition("=")[0] in known for option in options[1:])


def test_command_without_docker_has_the_same_addresses(service: Path) -> None:
    [line] = re.findall("^forge-realtime exec (.*)$", (service / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    options, _, command = line.partition(" -- ")
    given = dict(zip(options.split()[::2], options.split()[1::2], strict=True))
    compose = dict(
        option.split("=", 1) for option in read_yaml(service / "compose.yml")["services"]["sidecar"]["command"][2:]
    )
    assert given == {name: value for name, value in compose.items() if name != "--host"}
    assert command == "python service/main.py"
    known = help_of("exec")
    assert all(option in known for option in given)


def test_image_has_service_without_tests(service: Path) -> None:
    # Of the build's context: nothing but what the Dockerfile copies.
    assert (service / ".dockerignore").read_text(encoding="utf-8").splitlines() == [
        "*",
        "!requirements.txt",
        "!requirements-dev.txt",
        "!wheels",
        "!service",
        "service/test_*.py",
        "**/__pycache__",
    ]
    copied = [
        one.argument.split()[-2] for one in read_dockerfile((service / "Dockerfile").read_text()) if one.name == "COPY"
    ]
    assert copied == ["requirements.txt", "wheels/", "requirements-dev.txt", "service/"]
    assert all((service / name).exists() for name in copied)


def test_requirements_name_this_release_and_allow_what_is_installed(service: Path) -> None:
    lines = [
        line
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (service / name).read_text(encoding="utf-8").splitlines()
        if not line.startswith("-")
    ]
    release = forge_realtime.__version__
    assert {f"forge-realtime=={release}", f"forge-realtime[emulator]=={release}"} < {*lines}
    for requirement in map(Requirement, lines):
        assert version(requirement.name) in requirement.specifier


def test_local_page_has_only_the_emulators_bridge_more(fastapi_service: Path) -> None:
    page, local = (
        (fastapi_service / "frontend" / name).read_text(encoding="utf-8").splitlines()
        for name in ("index.html", "local.html")
    )
    more = [line.strip() for line in local if line not in page]
    assert [line for line in page if line not in local] == []
    assert more[1:] == ['<script src="http://127.0.0.1:7072/bridge.js"></script>']
    streams = Path(forge_realtime.__file__ or "").parent / "frontend"
    for name in ("streams.js", "streams.d.ts"):
        assert (fastapi_service / "frontend" / name).read_bytes() == (streams / name).read_bytes()


def test_next_three_commands_are_printed(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    folder = tmp_path / "a b" / "My_App 2"
    run = init(folder)
    assert run.exit_code == 0
    assert run.stderr == (
        "my-app-2 is ready. Test it, and run it with the emulator:\n"
        f"The first command needs forge-realtime in your package index, or its wheel in {folder / 'wheels'}.\n"
    )
    assert (folder / "wheels").is_dir()
    assert run.stdout.splitlines() == [
        f"cd '{folder}' && pip install -r requirements-dev.txt",
        "python -m pytest",
        "docker compose up --build",
    ]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "pip install -r requirements-dev.txt\npython -m pytest\ndocker compose up --build\n" in readme
    assert "example-app" not in "".join(text.decode() for text in contents(folder).values())


def test_empty_folder_and_this_folder_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-app").mkdir()
    monkeypatch.chdir(tmp_path / "my-app")
    assert init(".").exit_code == 0
    assert "key: my-app\n" in (tmp_path / "my-app/manifest.yml").read_text(encoding="utf-8")


def test_folder_with_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-app").mkdir()
    (tmp_path / "my-app/.env").write_text("mine", encoding="utf-8")
    run = init(tmp_path / "my-app")
    assert run.exit_code == 2
    assert "my-app is not empty. Name a new folder, or empty this one." in run.stderr
    assert contents(tmp_path) == {"my-app/.env": b"mine"}
    run = init(tmp_path / "my-app/.env")
    assert run.exit_code == 2


@pytest.mark.parametrize("name", ["a" * 20, "7days", "täglich", "---", "app!"])
def test_name_that_is_no_key_is_refused(tmp_path: Path, name: str) -> None:
    run = init(tmp_path / name)
    assert run.exit_code == 2
    assert "at most 19 letters a to z, digits and hyphens, with a letter first" in " ".join(run.stderr.split())
    assert "forge-realtime init my-service" in " ".join(run.stderr.split())
    assert contents(tmp_path) == {}


def test_nothing_is_left_when_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "main.py":
            raise OSError(28, "No space left on device")
        return written(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    run = init(tmp_path / "new/my-app")
    assert run.exit_code == 1
    assert "my-app cannot be written" in run.stderr
    assert "No space left on device" in run.stderr
    assert "Nothing was written." in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for path in ("file", "file/my-app"):
        assert init(tmp_path / path).exit_code in {1, 2}
    assert contents(tmp_path) == {"file": b"mine"}

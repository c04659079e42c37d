"""Front ends of the examples and tests, built as an app's developer builds them, and served."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from uuid import uuid4

import forge_realtime
from forge_realtime_emulator import Emulator

EXAMPLES = Path(__file__).parents[1] / "examples"
STREAMS = Path(forge_realtime.__file__ or "").with_name("frontend") / "streams.js"


class Site:
    """Server of a front end's pages, from another origin than the emulator's, as a dev server does."""

    def __init__(self, examples: Path, folder: Path) -> None:
        self._examples = examples
        self._folder = folder
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin = f"http://localhost:{self._server.server_port}"
        self.other_origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def app(self, name: str, emulator: Emulator) -> str:
        """Build an example app, and return the path of its page."""
        run("node", "build.mjs", name, str(self._folder / name), emulator.url, folder=self._examples)
        return f"/{name}/index.html"

    def bundle(self, script: Path) -> None:
        """Bundle a script of the tests."""
        command = [self._tool("esbuild"), str(script), "--bundle", "--log-level=warning", "--jsx=automatic"]
        command += [f"--alias:{file.stem}={file}" for file in STREAMS.parent.glob("*.js")]
        run(*command, f"--outfile={self._folder / script.with_suffix('.js').name}", folder=self._examples)

    def write(self, path: str, text: str) -> None:
        """Write a file of the site."""
        file = self._folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def new_service(self, frontend: Path, emulator: Emulator) -> str:
        """Build the page of a service that `init` wrote, and return its path."""
        (frontend / "node_modules").symlink_to(self._examples / "node_modules")
        run("npm", "run", "build", folder=frontend)
        script = json.loads((frontend / "package.json").read_text(encoding="utf-8"))["scripts"]["local"]
        command, _, _ = script.partition(" --servedir")
        tool, *arguments = command.split()
        run(self._tool(tool), *arguments, folder=frontend)
        for name in ("main.js", "main.css", "local.html"):
            text = (frontend / "local" / name).read_text(encoding="utf-8")
            self.write(f"service/{name}", text.replace("http://127.0.0.1:7072", emulator.url))
        return "/service/local.html"

    def in_jsdom(self, script: Path, path: str) -> str:
        """Run a script of the tests in node with a page, and return its output."""
        return run("node", str(script), self.origin, path, folder=self._examples)

    def check_types(self, folder: Path) -> str:
        """Run the TypeScript compiler on a folder, with the installed packages, and return its output."""
        (folder / "node_modules").symlink_to(self._examples / "node_modules")
        return run(self._tool("tsc"), "--project", str(folder), folder=self._examples)

    def _tool(self, name: str) -> str:
        """Return the path of a package's program. With npx, starting it takes longer than most of its work."""
        return str(self._examples / "node_modules/.bin" / name)

    def page(self, bridge: str, script: str = "bridge_page.js", resources: str = "{}") -> str:
        """Write a page that loads a bridge.js and then a bundle of the tests, and return its path."""
        name = f"{uuid4()}.html"
        html = f"<!doctype html><link rel='icon' href='data:,'><script src='{bridge}' data-resources='{resources}'>"
        html += f"</script><body><script src='{script}'></script>"
        (self._folder / name).write_text(html, encoding="utf-8")
        return f"/{name}"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


def install(examples: Path) -> None:
    """Make a folder with the front ends of the examples and their packages."""
    unneeded = shutil.ignore_patterns("node_modules", "dist", "*.py", "__pycache__", "streams.*", "use-forge-*")
    shutil.copytree(EXAMPLES, examples, ignore=unneeded, dirs_exist_ok=True)
    for file in STREAMS.parent.iterdir():
        shutil.copy(file, examples / "answer/frontend")
    run("npm", "ci", folder=examples)


def install_package(folder: Path, name: str) -> Path:
    """Install one package of the examples as it is locked, and return its folder."""
    lock = json.loads((EXAMPLES / "package-lock.json").read_text(encoding="utf-8"))
    locked = lock["packages"][f"node_modules/{name}"]
    wanted = {"devDependencies": {name: locked["version"]}}
    lock["packages"] = {"": wanted, f"node_modules/{name}": locked}
    (folder / "package.json").write_text(json.dumps(wanted), encoding="utf-8")
    (folder / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    run("npm", "ci", folder=folder)
    return folder / "node_modules" / name


def run(*command: str, folder: Path) -> str:
    """Run a command that must succeed, and return its output."""
    # NODE_PATH lets esbuild find the packages for a file outside their folder.
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    run = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}{run.stderr}"
    return run.stdout

"""The front ends of the examples and of the tests, made as an app's developer makes them, and served."""

from __future__ import annotations

import functools
import http.server
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
    """The pages of a front end, served as a dev server does: from an origin that is not the emulator's."""

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
        self._thread.join()
        self._server.server_close()

    def app(self, name: str, emulator: Emulator) -> str:
        """Builds an example app as its developer does; returns the path of its page."""
        run("node", "build.mjs", name, str(self._folder / name), emulator.url, folder=self._examples)
        return f"/{name}/index.html"

    def bundle(self, script: Path) -> None:
        """Bundles a script of the tests, as an app's is."""
        command = ["npx", "esbuild", str(script), "--bundle", "--log-level=warning", f"--alias:streams={STREAMS}"]
        run(*command, f"--outfile={self._folder / script.name}", folder=self._examples)

    def check_types(self, folder: Path) -> str:
        """What the TypeScript compiler says of the files of a folder that use what is installed."""
        (folder / "node_modules").symlink_to(self._examples / "node_modules")
        return run("npx", "tsc", "--project", str(folder), folder=self._examples)

    def page(self, bridge: str, script: str = "bridge_page.js") -> str:
        """Writes a page that loads a bridge.js and then a bundle of the tests; returns its path."""
        name = f"{uuid4()}.html"
        html = f'<!doctype html><link rel="icon" href="data:,"><script src="{bridge}"></script>'
        html += f'<script src="{script}"></script>'
        (self._folder / name).write_text(html, encoding="utf-8")
        return f"/{name}"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def install(examples: Path) -> None:
    """Makes a folder with the front ends of the examples and what they need, as their developer does."""
    unneeded = shutil.ignore_patterns("node_modules", "dist", "*.py", "__pycache__", "streams.*")
    shutil.copytree(EXAMPLES, examples, ignore=unneeded, dirs_exist_ok=True)
    for name in ("streams.js", "streams.d.ts"):
        shutil.copy(STREAMS.with_name(name), examples / "answer/frontend")
    run("npm", "ci", folder=examples)


def run(*command: str, folder: Path) -> str:
    """Runs a command to its good end, and returns what it printed."""
    # esbuild finds packages for a file outside of their folder by NODE_PATH.
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    run = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}{run.stderr}"
    return run.stdout

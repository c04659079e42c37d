"""Paths of the repository, relative to its root."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path("spec/forge-containers-api.json")
SOURCE = Path("spec/source.toml")
DERIVED = Path("spec/realtime.json")

OVERLAYS = Path("overlays/openapi")
HAND_WRITTEN = Path("overlays/forge_realtime")
EMULATOR = Path("emulator/forge_realtime_emulator")
CONFIG = Path("generator/openapi-python-client.yaml")

GENERATED = Path("generated")
API = GENERATED / "forge_realtime/_api"
DOCUMENT_MODULE = GENERATED / "forge_realtime/_document.py"
LOCK = Path("generated.lock")

TYPING_TESTS = Path("tests/typing")
CHANGELOG = Path("CHANGELOG.md")
PROJECT = Path("pyproject.toml")
SBOM = Path("sbom.cdx.json")
VERSION = HAND_WRITTEN / "_version.py"

"""The pages on answers: their recipes run against a server that plays the models, their other code is of examples."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_realtime import AsyncRealtimeClient
from forge_realtime_emulator import Emulator
from tests.support.callers import INVOCATION
from tests.support.model_server import SECRET, WORDS, ModelServer
from tests.support.recorded import recorded

ROOT = Path(__file__).parent.parent.parent
PAGES = "".join((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("answers", "answers-page"))
BLOCKS = [(match[1], match[2]) for match in re.finditer(r"^```(\w+)\n(.*?)^```$", PAGES, re.DOTALL | re.MULTILINE)]
EXAMPLE = [
    *sorted((ROOT / "tests/examples/answer").glob("*.py")),
    *sorted((ROOT / "tests/examples/flask").glob("*.py")),
    *sorted((ROOT / "tests/examples/answer/frontend").glob("*.jsx")),
]
ANSWER = "".join(WORDS)
IMPORTS = """
from __future__ import annotations
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
MODEL = "model"
log = logging.getLogger("recipes")
class ModelError(Exception): ...
async def model(question):
    yield "The "
    raise ModelError("internal note of the provider")
"""


def is_recipe(language: str, block: str) -> bool:
    return language == "python" and ("openai" in block or "ModelError" in block)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        yield server


class Recipes:
    """The recipes of the page, each by its name."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._names: dict[str, Any] = {"logging": logging}

    def run(self, name: str, *, stopped: Callable[[], Awaitable[object]] | None = None) -> Any:
        """Run a recipe, stop its stream when `stopped` returns, and return the stream as the emulator saw it."""

        async def main() -> None:
            # In the loop that the models' clients belong to.
            exec(IMPORTS + "".join(block for kind, block in BLOCKS if is_recipe(kind, block)), self._names)
            async with AsyncRealtimeClient(self._emulator.url) as client:
                live = client.for_invocation(INVOCATION)
                merge: Any = "batch" if name == "respond_with_openai" else "append"
                stream = await live.private_stream("answer", merge=merge)
                running = asyncio.create_task(self._names[name](stream, "Why?"))
                if stopped is not None:
                    await stopped()
                    stream.stop("enough")
                await running

        self._emulator.reset()
        asyncio.run(main())
        stream = recorded(self._emulator)
        assert stream.ended
        return stream

    async def wait_for_text(self) -> None:
        """Wait until the first word has been published."""
        while not any('"data"' in event.payload for event in self._emulator.events):  # noqa: ASYNC110 (in a thread)
            await asyncio.sleep(0.01)


@pytest.fixture
def recipes(emulator: Emulator) -> Recipes:
    return Recipes(emulator)


def text_of(value: str | list[dict[str, str]]) -> str:
    return value if isinstance(value, str) else "".join(part.get("text", "") for part in value)


FROM_MODELS = ["chat_with_openai", "respond_with_openai", "answer_with_anthropic", "answer_with_pydantic_ai"]


def test_every_block_is_checked() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLE)
    for kind, block in BLOCKS:
        if kind == "json":
            assert json.loads(block).keys() == {"channel", "stream", "token", "expiresAt", "stop"}
        elif not is_recipe(kind, block):
            assert block in code


@pytest.mark.parametrize("name", FROM_MODELS)
def test_recipe_streams_the_answer(recipes: Recipes, models: ModelServer, name: str) -> None:
    stream = recipes.run(name)
    assert (text_of(stream.value), stream.error) == (ANSWER, None)


@pytest.mark.parametrize("name", FROM_MODELS)
def test_stop_closes_the_response_of_the_model(recipes: Recipes, models: ModelServer, name: str) -> None:
    models.halts = True
    stream = recipes.run(name, stopped=recipes.wait_for_text)
    assert (text_of(stream.value), stream.stopped) == (WORDS[0], {"by": "app", "reason": "enough"})
    assert models.left.wait(10)


@pytest.mark.parametrize("name", FROM_MODELS)
def test_error_of_the_model_shows_its_class_only(
    recipes: Recipes, models: ModelServer, emulator: Emulator, name: str
) -> None:
    models.fails = True
    with pytest.raises(Exception, match=SECRET):
        recipes.run(name)
    stream = recorded(emulator)
    assert text_of(stream.value) == WORDS[0]
    assert stream.error is not None
    assert stream.error.keys() == {"type"}
    assert SECRET not in "".join(event.payload for event in emulator.events)


def test_app_chooses_what_the_page_gets_of_an_error(recipes: Recipes, models: ModelServer, emulator: Emulator) -> None:
    error = {"type": "model_unavailable", "message": "The model is not available. Ask again in a minute."}
    assert recipes.run("answer_or_apologize").error == error
    assert SECRET not in "".join(event.payload for event in emulator.events)


def test_parts_keep_their_structure(recipes: Recipes, models: ModelServer) -> None:
    citation = {"type": "url_citation", "url": "https://sky.test", "title": "Sky", "start_index": 0, "end_index": 3}
    assert recipes.run("respond_with_openai").value == [
        *({"text": word} for word in WORDS),
        {"citation": citation},
        {"tool": "look_up", "arguments": '{"at":"noon"}'},
    ]

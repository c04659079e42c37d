"""One emulator for the whole run; a test that looks at records, faults or the end of it takes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

from forge_realtime_emulator import Emulator, Settings
from tests.emulator.api import Api


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with Emulator(settings=Settings(limit=None)) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def api_of(client: httpx.Client) -> Callable[[Emulator], Api]:
    return lambda emulator: Api(emulator, client)


@pytest.fixture(scope="session")
def api(emulator: Emulator, api_of: Callable[[Emulator], Api]) -> Api:
    return api_of(emulator)


@pytest.fixture
def own(api_of: Callable[[Emulator], Api]) -> Iterator[Api]:
    """An emulator of this test alone."""
    with Emulator() as emulator:
        yield api_of(emulator)


@pytest.fixture
def channel() -> str:
    return f"channel-{uuid4()}"

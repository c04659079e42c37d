"""A Redis server for the tests of shared quotas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer, require_redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    require_redis()
    with RedisServer() as server:
        yield server

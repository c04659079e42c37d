from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_realtime._quota import limiter as _quota


@pytest.fixture(autouse=True)
def fresh_quota() -> Iterator[None]:
    """Each test starts with unused quotas: an earlier server may have had the same port, and refused everything."""
    _quota._state.reset_after_fork()
    yield
    _quota._state.reset_after_fork()

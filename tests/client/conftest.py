from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_realtime._quota import limiter as _quota


@pytest.fixture(autouse=True)
def nothing_used() -> Iterator[None]:
    """The quota of a test is its own: another one's server may have had the same port, and refused everything."""
    _quota._state.reset_after_fork()
    yield
    _quota._state.reset_after_fork()

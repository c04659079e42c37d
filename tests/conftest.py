from __future__ import annotations

import pytest

from tests.support.callers import KINDS, Caller


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)

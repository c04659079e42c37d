"""Every row of the fault matrix, through every client, over real sockets. `make faults` prints it."""

from __future__ import annotations

import pytest

from tests.faults.matrix import FAULTS, Fault, run, table
from tests.support.callers import KINDS, Kind

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault, kind: Kind) -> None:
    row = run(fault, kind)
    assert not row.problems, "\n".join(table([row]))

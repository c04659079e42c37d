"""Every row of the matrix, through both clients, over real sockets. `make faults` prints it."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.faults.matrix import FAULTS, Fault, Kind, run, table


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault, kind: Kind) -> None:
    row = run(fault, kind)
    assert not row.problems, "\n".join(table([row]))

"""`make faults`: print the fault matrix. The exit code is 1 if a row is not as expected."""

from __future__ import annotations

import logging
import sys
import time
import warnings

from tests.faults.matrix import FAULTS, run, table
from tests.support.callers import KINDS

LEGEND = """Faults on real sockets. Every attempt of three calls meets the fault: publishing at least once, publishing
at most once, and signing a token. `attempts` and `server saw` (complete requests) have one number for each call.
"""


def main() -> int:
    # As in pytest.
    warnings.simplefilter("error")
    logging.getLogger("forge_realtime").addHandler(logging.NullHandler())
    began = time.monotonic()
    rows = []
    for fault in FAULTS:
        for kind in KINDS:
            rows.append(run(fault, kind))
            print(f"\r{len(rows)} of {len(KINDS) * len(FAULTS)}", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    print(LEGEND)
    for line in table(rows):
        print(line)
    wrong = [row for row in rows if row.problems]
    print(
        f"\n{len(FAULTS)} faults, {len(rows)} rows, {3 * len(rows)} calls in {time.monotonic() - began:.0f} s: ", end=""
    )
    print(f"{len(rows) - len(wrong)} rows as expected, {len(wrong)} not")
    for row in wrong:
        for problem in row.problems:
            print(f"  {row.fault.name} ({row.kind}): {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

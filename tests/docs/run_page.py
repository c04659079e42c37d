"""Run the Python programs of a page, each in a namespace of its own, and print the output of each as JSON.

One process for a page: an interpreter for each block would take ten times as long.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
import types
from typing import Any

from tests.docs.pages import blocks_of


def main(page: str) -> None:
    """Run the blocks in their order."""
    outputs: dict[int, str] = {}
    module = types.ModuleType("__main__")
    for block in blocks_of(page):
        if block.language != "python" or block.is_pytest or block.test.startswith(("no", "from")):
            continue
        if block.test != "continues":
            module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        namespace: dict[str, Any] = vars(module)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(block.code, str(block), "exec"), namespace)
            except BaseException:  # noqa: BLE001 (shown as the block's output)
                traceback.print_exc()
        outputs[block.line] = printed.getvalue()
    print(json.dumps(outputs))


if __name__ == "__main__":
    main(sys.argv[1])

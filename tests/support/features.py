"""What the pinned document lacks: tests of it are skipped, with the reason."""

from __future__ import annotations

import pytest

from forge_realtime._realtime.operations import lacking

LACKING = lacking()


def needs(*arguments: str) -> pytest.MarkDecorator:
    """Skips a test where the document has no property for one of the arguments."""
    missing = [call for call in LACKING for argument in arguments if f"({argument}=" in call]
    return pytest.mark.skipif(bool(missing), reason=f"the pinned document has no property for {', '.join(missing)}")

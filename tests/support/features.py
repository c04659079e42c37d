"""Skips for tests of arguments that the pinned document does not have."""

from __future__ import annotations

import pytest

from forge_realtime._realtime.operations import lacking

LACKING = lacking()


def needs(*arguments: str) -> pytest.MarkDecorator:
    """Skip a test when the document has no property for one of the arguments."""
    missing = [call for call in LACKING for argument in arguments if f"({argument}=" in call]
    reason = f"not in the pinned document: {', '.join(missing)}. To run these tests: make pull"
    return pytest.mark.skipif(bool(missing), reason=reason)

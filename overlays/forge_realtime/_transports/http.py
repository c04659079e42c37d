"""httpcore, on which the HTTP library of the package stands. Not in `_core`, as importing it takes long."""

from __future__ import annotations

import httpcore

__all__ = ["httpcore"]

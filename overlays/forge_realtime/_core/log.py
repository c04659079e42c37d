"""The package's logger."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger(__name__.rpartition("._core.")[0])
"""Named after the package, which has another name where it is vendored."""

# What matters is also raised. Without this, Python would print warnings when logging is not set up.
logger.addHandler(logging.NullHandler())

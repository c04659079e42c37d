"""The HTTP library, which is the one that the generated code imports. Nothing else imports it by its name."""

from __future__ import annotations

import httpx

__all__ = ["httpx"]

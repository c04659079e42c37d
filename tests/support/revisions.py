"""The published revisions of the Realtime part, derived from the pinned document."""

from __future__ import annotations

import copy
from typing import Any

Document = dict[str, Any]

REVISIONS = (1, 2, 3)


def revision(document: Document, number: int) -> Document:
    """Return the document at a revision. 2 added `options.contextOverrides`, 3 added `permissions` of the token."""
    revised = copy.deepcopy(document)

    def properties(path: str) -> Document:
        content = revised["paths"][path]["post"]["requestBody"]["content"]
        found: Document = content["application/json"]["schema"]["properties"]
        return found

    options = properties("/forge/realtime/v1/publish")["options"]["properties"]
    options.pop("contextOverrides", None)
    token = properties("/forge/realtime/v1/token")
    token.pop("permissions", None)
    if number >= 2:
        options["contextOverrides"] = {"type": "array", "items": {"type": "string"}}
    if number >= 3:
        token["permissions"] = {"type": "array", "items": {"type": "string", "enum": ["subscribe", "publish"]}}
    return revised

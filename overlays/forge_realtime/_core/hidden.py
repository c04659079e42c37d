"""Values that crash reporters must not show: they call `repr` on the variables of every frame."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Hidden(Generic[T]):
    """A payload, token or claims, on the way to the request."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

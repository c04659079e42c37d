"""The last of what happened, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes of payloads and bodies that one of these keeps."""


class BoundedLog(Generic[T]):
    """The last items; the oldest go when there are more than so many, or when they are over `SIZE_LIMIT` together.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0

    def append(self, item: T, size: int) -> None:
        """Adds an item; `size` is what it takes, roughly, in bytes."""
        self._items.append((item, size))
        self._size += size
        while len(self._items) > self._most or (self._size > SIZE_LIMIT and len(self._items) > 1):
            self._size -= self._items.popleft()[1]

    def clear(self) -> None:
        """Drops them all."""
        self._items.clear()
        self._size = 0

    def __iter__(self) -> Iterator[T]:
        # Of a copy: tests look from their thread while the emulator's adds.
        return iter([item for item, _ in [*self._items]])

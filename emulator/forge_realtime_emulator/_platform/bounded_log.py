"""The last records of a kind, bounded in number and size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes of payloads and bodies that one log keeps."""


class BoundedLog(Generic[T]):
    """Log that drops its oldest items when it holds too many, or more than `SIZE_LIMIT` bytes.

    Args:
        max_items: The number of items that it keeps at most.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items: deque[T] = deque()
        # Beside the items: a pair of both would be one more object for the garbage collector to visit.
        self._sizes: deque[int] = deque()
        self._size = 0

    def append(self, item: T, size: int) -> bool:
        """Add an item, and return whether older ones were dropped; `size` is its approximate size in bytes."""
        is_dropping = False
        self._items.append(item)
        self._sizes.append(size)
        self._size += size
        while len(self._items) > self._max_items or (self._size > SIZE_LIMIT and len(self._items) > 1):
            self._items.popleft()
            self._size -= self._sizes.popleft()
            is_dropping = True
        return is_dropping

    def clear(self) -> None:
        """Drop all items."""
        self._items.clear()
        self._sizes.clear()
        self._size = 0

    def __iter__(self) -> Iterator[T]:
        # Iterate over a copy: tests read from their thread while the emulator's thread adds.
        return iter([*self._items])

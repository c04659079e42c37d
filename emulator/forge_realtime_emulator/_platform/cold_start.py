"""Cold start of the app's container, which the platform scales to zero when it has no traffic."""

from __future__ import annotations

from .settings import Settings


class ColdStart:
    """Traffic of the container, and the time when it is ready."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._ready = 0.0

    def refuses(self, now: float, settings: Settings) -> bool:
        """Note a call of the container, and return whether the container is still starting.

        Args:
            now: Seconds, by the emulator's clock.
            settings: `cold_start_after` and `cold_start_duration`.
        """
        if settings.cold_start_after is None:
            return False
        if self._last is not None and now - self._last >= settings.cold_start_after:
            self._ready = now + settings.cold_start_duration
        self._last = now
        return now < self._ready

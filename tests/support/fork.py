"""Publishes in a process and in a fork of it: python -m tests.support.fork URL os|libc."""

from __future__ import annotations

import ctypes
import os
import sys

from forge_realtime import RealtimeClient


def fork(kind: str) -> int:
    """Forks with Python's hooks, or without, as uWSGI does."""
    pid: int = os.fork() if kind == "os" else ctypes.PyDLL(None).fork()
    return pid


def main() -> int:
    client = RealtimeClient(sys.argv[1], cache_tokens=True)
    live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
    live.publish("c", "before")
    idle = list(client._pool._idle)
    # As if another thread were in the middle of a call.
    client._pool.budget._lock.acquire()
    child = fork(sys.argv[2])
    if child == 0:
        live.publish("c", "child")
        client.close()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    client._pool.budget._lock.release()
    live.publish("c", "parent")
    assert list(client._pool._idle) == idle
    client.close()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())

"""The end of an interpreter, and interpreters inside of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.callers import KINDS, Kind
from tests.support.fault_server import FaultServer, refused_url

TRANSPORT = {"sync": "sync", "async": "httpx", "aiohttp": "aiohttp"}

PROGRAM = """
import atexit, asyncio, sys, threading
from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, RealtimeClient, RetryPolicy

kind, when, *urls = sys.argv[1:]
retry = RetryPolicy(max_attempts=2, backoff_initial=0.001)
main = threading.current_thread()


def make(url):
    return RealtimeClient(url, retry=retry) if kind == "sync" else AsyncRealtimeClient(url, retry=retry, transport=kind)


clients = [make(url) for url in urls] if when.startswith("made before") else []


async def publish(client):
    async with client:
        return await client.for_invocation({"x-forge-invocation-id": "invocation-123"}).publish("c", "p")


def job():
    if "thread" in when:
        main.join()
    for client in clients or map(make, urls):
        try:
            if kind == "sync":
                live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
                print(live.publish("c", "p").event_id)
            else:
                print(asyncio.run(publish(client)).event_id)
        except ForgeRealtimeError as error:
            print(type(error).__name__, error.delivery.value, "-", error)


if "thread" in when:
    threading.Thread(target=job).start()
else:
    atexit.register(job)
"""

# What Python 3.12.0 to 3.12.2 does at exit, and an interpreter that allows no threads.
WITHOUT_THREADS = """
import threading
def refuse(self):
    raise RuntimeError("can't create new thread at interpreter shutdown")
threading.Thread.start = refuse
"""

WHEN = ("in a thread that outlives the main one", "made before, in such a thread", "at exit", "made before, at exit")


def run(kind: Kind, when: str, *urls: str, before: str = "") -> str:
    command = [sys.executable, "-c", before + PROGRAM, TRANSPORT[kind], when, *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
def test_event_is_sent_while_the_interpreter_shuts_down(kind: Kind, when: str) -> None:
    with FaultServer() as server:
        urls = [server.url.replace("127.0.0.1", "localhost"), server.url]
        assert run(kind, when, *urls) == "event-1\nevent-1"
        assert len(server.received) == 2


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
def test_event_that_cannot_be_sent_at_shutdown_is_not_sent(kind: Kind, when: str) -> None:
    said = run(kind, when, refused_url().replace("127.0.0.1", "localhost"))
    assert said.startswith("NoResponseError not sent - publish: no response (ConnectError: ")
    assert "onnection refused" in said or "Connect call failed" in said


@pytest.mark.parametrize("when", ["at exit", "made before, at exit"])
@pytest.mark.parametrize("kind", KINDS)
def test_event_is_sent_where_no_thread_can_start(kind: Kind, when: str) -> None:
    with FaultServer() as server:
        assert run(kind, when, server.url.replace("127.0.0.1", "localhost"), before=WITHOUT_THREADS) == "event-1"
        assert len(server.received) == 1


SUBINTERPRETER = """
import sys
import _xxsubinterpreters as interpreters

program = '''
import sys
sys.argv = {argv!r}
{publish}
'''
for _ in range(3):
    interpreter = interpreters.create(isolated={isolated})
    interpreters.run_string(interpreter, program)
    interpreters.destroy(interpreter)
print("ended", flush=True)
"""

PUBLISH = """
import asyncio
# httpcore imports it, and trio starts a process, which isolated interpreters do not allow.
sys.modules["trio"] = None
from forge_realtime import AsyncRealtimeClient, RealtimeClient

kind, url = sys.argv[1:]
INVOCATION = {"x-forge-invocation-id": "invocation-123"}


async def publish():
    async with AsyncRealtimeClient(url, transport=kind) as client:
        return await client.for_invocation(INVOCATION).publish("c", "p")


if kind == "sync":
    with RealtimeClient(url) as client:
        print(client.for_invocation(INVOCATION).publish("c", "p").event_id, flush=True)
else:
    print(asyncio.run(publish()).event_id, flush=True)
"""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="needs Python 3.11, which has _xxsubinterpreters")
@pytest.mark.parametrize("isolated", [False, True], ids=["plain", "isolated"])
@pytest.mark.parametrize("kind", KINDS)
def test_event_is_sent_from_a_subinterpreter(kind: Kind, isolated: bool) -> None:
    """No thread outlives the interpreter that made it: that would end the process with a fatal error."""
    with FaultServer() as server:
        argv = ["", TRANSPORT[kind], server.url.replace("127.0.0.1", "localhost")]
        program = SUBINTERPRETER.format(argv=argv, publish=PUBLISH, isolated=isolated)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        # `_decimal` prints a line on stderr for each interpreter after the first.
        assert (done.returncode, done.stdout) == (0, "event-1\n" * 3 + "ended\n"), done.stderr
        assert len(server.received) == 3

"""A server that plays the streamed answers of language models, in the protocols of OpenAI and Anthropic."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from tests.support.web_servers import ServerInThread

WORDS: Final = ("The ", "sky ", "is ", "blue", ".")
SECRET: Final = "internal note of the provider"


class ModelServer(ServerInThread):
    """Model server.

    Attributes:
        halts: Whether an answer stops after its first word until the client closes the connection.
        fails: Whether an answer ends with an error after its first word.
        left: Set when a client has closed the connection of a halted answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.halts = self.fails = False
        self.left = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        server = self.server
        assert isinstance(server, ModelServer)
        events, first_word, error = PROTOCOLS[self.path]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for number, event in enumerate(events):
            if number > first_word and server.halts:
                # Returns when the client closes the connection.
                self.rfile.read(1)
                server.left.set()
                return
            if number > first_word and server.fails:
                self._write(error)
                return
            self._write(event)

    def _write(self, event: Any) -> None:
        name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
        data = event if isinstance(event, str) else json.dumps(event)
        self.wfile.write(f"{name}data: {data}\n\n".encode())


def _chat_chunks() -> Iterator[Any]:
    chunk = {"id": "chat-1", "object": "chat.completion.chunk", "created": 0, "model": "model"}
    for word in ("", *WORDS):
        delta = {"content": word} if word else {"role": "assistant", "content": ""}
        yield {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
    yield {**chunk, "choices": [], "usage": usage}
    yield "[DONE]"


def _response_events() -> Iterator[Any]:
    response = {"id": "response-1", "object": "response", "created_at": 0, "model": "model", "output": []}
    place = {"item_id": "item-1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    events += [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in WORDS]
    citation = {"type": "url_citation", "url": "https://sky.test", "title": "Sky", "start_index": 0, "end_index": 3}
    events.append(
        {"type": "response.output_text.annotation.added", **place, "annotation_index": 0, "annotation": citation}
    )
    call = {
        "type": "function_call",
        "id": "item-2",
        "call_id": "call-1",
        "name": "look_up",
        "arguments": '{"at":"noon"}',
    }
    events.append({"type": "response.output_item.done", "output_index": 1, "item": call})
    events.append({"type": "response.completed", "response": response})
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def _message_events() -> Iterator[Any]:
    message = {"id": "message-1", "type": "message", "role": "assistant", "content": [], "model": "model"}
    ends = {"stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**message, **ends, "usage": {"input_tokens": 1, "output_tokens": 1}}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in WORDS:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {**ends, "stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


_FAILED = {"error": {"type": "overloaded_error", "message": SECRET, "code": "overloaded"}}
# By path: the events of an answer, the number of the one with the first word, and the event of an error.
PROTOCOLS: Final[dict[str, tuple[list[Any], int, Any]]] = {
    "/v1/chat/completions": ([*_chat_chunks()], 1, _FAILED),
    "/v1/responses": ([*_response_events()], 1, {"type": "error", "message": SECRET, "code": "overloaded", **_FAILED}),
    "/v1/messages": ([*_message_events()], 2, {"type": "error", **_FAILED}),
}

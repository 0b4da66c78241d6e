"""A Messages API on loopback: what a test scripts it answers, what it receives it checks as the API does and keeps.

Each request takes the next scripted answer: a :func:`message`, an :func:`error`, or raw events. A request whose
structure the API would refuse gets 400 ``invalid_request_error`` instead, and the script is left as it was. Without a
script, a function may answer (:attr:`MessagesServer.otherwise`).
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import field, frozen

_MARKED = ("system", "tools", "messages")
USAGE = {"input_tokens": 10, "output_tokens": 5}


@frozen
class Answer:
    """The server's answer to a request."""

    status: int = 200
    body: Any = None
    events: tuple[dict[str, Any] | str, ...] = ()  # a text is sent as it is
    then: str = "end"  # "end" the stream, "cut" the connection, or "wait" until the client has gone
    html: bool = False
    headers: dict[str, str] = field(factory=dict)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def tool_use(call: str, name: str = "add", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": arguments}


def error(status: int, kind: str, told: str = "told by the API", code: str | None = None) -> Answer:
    """An answer with an error status."""
    return Answer(status, _error(kind, told, code))


def message(
    *blocks: dict[str, Any],
    id: str = "msg_1",  # noqa: A002 - it is the API's name
    stop: str = "end_turn",
    container: str | None = None,
    **delta: Any,
) -> Answer:
    """A whole message, as the events that the API streams it in."""
    return Answer(events=(*begun(id), *streamed(*blocks), *finished(stop, container, **delta)))


def begun(id: str = "msg_1") -> tuple[dict[str, Any], ...]:  # noqa: A002 - it is the API's name
    empty = {"id": id, "type": "message", "role": "assistant", "model": "m", "content": []}
    return ({"type": "message_start", "message": {**empty, "stop_reason": None, "usage": USAGE}}, {"type": "ping"})


def streamed(*blocks: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple(event for index, block in enumerate(blocks) for event in _block(index, block))


def finished(stop: str = "end_turn", container: str | None = None, **delta: Any) -> tuple[dict[str, Any], ...]:
    delta = {"stop_reason": stop, "stop_sequence": None, **delta}
    if container:
        delta["container"] = {"id": container, "expires_at": "2030-01-01T00:00:00Z"}
    return ({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}, {"type": "message_stop"})


def error_event(kind: str, told: str = "told in the stream") -> dict[str, Any]:
    return _error(kind, told)


def _error(kind: str, told: str, code: str | None = None) -> dict[str, Any]:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": told, **details}}


def _block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    start, deltas = dict(block), []
    match block["type"]:
        case "text":
            start["text"] = ""
            half = len(block["text"]) // 2
            deltas = [{"type": "text_delta", "text": part} for part in (block["text"][:half], block["text"][half:])]
            if citations := start.pop("citations", None):
                deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
        case "thinking":
            start.update(thinking="", signature="")
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas += [{"type": "signature_delta", "signature": block["signature"]}]
        case "tool_use" | "server_tool_use":
            # A text stands for arguments as they were streamed, cut off or broken.
            written = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
            start["input"] = {}
            half = len(written) // 2
            deltas = [
                {"type": "input_json_delta", "partial_json": part} for part in ("", written[:half], written[half:])
            ]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def refusal_of(request: dict[str, Any]) -> str | None:
    """Why the API would refuse a request for its structure, or None."""
    marks = sum("cache_control" in found for found in _walk([request.get(name) for name in _MARKED]))
    if marks > 4:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {marks}."
    messages = [_in_blocks(sent) for sent in request["messages"] if sent["role"] != "system"]
    if not messages or messages[0]["role"] != "user":
        return "messages: first message must use the user role"
    calls: list[str] = []
    for number, sent in enumerate(messages):
        last = number == len(messages) - 1
        if why := _refusal_of_message(sent, calls, last=last):
            return f"messages.{number}: {why}"
        calls = [block["id"] for block in sent["content"] if block["type"] == "tool_use"]
    return "messages: tool_use without tool_result" if calls else None


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(inner)


def _in_blocks(sent: dict[str, Any]) -> dict[str, Any]:
    return {**sent, "content": [text(sent["content"])]} if isinstance(sent["content"], str) else sent


def _refusal_of_message(sent: dict[str, Any], calls: list[str], *, last: bool) -> str | None:
    blocks = sent["content"]
    if sent["role"] not in {"user", "assistant"} or not blocks:
        return "a role and non-empty content are required"
    if any(block.get("type") == "text" and not block.get("text", "x").strip() for block in _walk(blocks)):
        return "text content blocks must contain non-whitespace text"
    if any("parsed_output" in block for block in blocks):
        return "parsed_output: Extra inputs are not permitted"
    if why := _refusal_of_results(blocks, calls):
        return why
    return _refusal_of_answer(blocks, last=last) if sent["role"] == "assistant" else None


def _refusal_of_results(blocks: list[dict[str, Any]], calls: list[str]) -> str | None:
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if sorted(results) != sorted(calls):
        return "tool_use and tool_result blocks must match"
    if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
        return "tool_result blocks must come first"
    return None


def _refusal_of_answer(blocks: list[dict[str, Any]], *, last: bool) -> str | None:
    if blocks[-1]["type"] == "thinking":
        return "The final block in an assistant message cannot be `thinking`"
    if any(block["type"] == "thinking" and not block["signature"].startswith("signed:") for block in blocks):
        return "Invalid `signature` in `thinking` block"
    if last and blocks[-1]["type"] == "text" and blocks[-1]["text"] != blocks[-1]["text"].rstrip():
        return "final assistant content cannot end with trailing whitespace"
    return None


def _as_event(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


class MessagesServer(ThreadingHTTPServer):
    """The server; use it as a context manager.

    Attributes:
        received: the bodies of the requests for an answer, oldest first.
        counted: the bodies of the requests to count tokens, oldest first.
        asked: path and headers of each request, oldest first.
        counting: answers a request to count tokens; by default one that the API would refuse is refused.
        otherwise: answers a request when nothing is scripted.
        left: set once a client went away before its answer was over.
        keeps_alive: whether a connection is used again; without it no thread outlives its request.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[dict[str, Any]] = []
        self.counted: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.counting: Callable[[dict[str, Any]], Answer] | None = None
        self.otherwise: Callable[[dict[str, Any]], Answer] | None = None
        self.left = threading.Event()
        self.keeps_alive = True
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will(self, *answers: Answer) -> None:
        """Script the next answers."""
        for answer in answers:
            self.answers.put(answer)

    def answer_to(self, request: dict[str, Any]) -> Answer:
        if self.otherwise is not None and self.answers.empty():
            return self.otherwise(request)
        return self.answers.get_nowait()

    def count_of(self, request: dict[str, Any]) -> Answer:
        if self.counting is not None:
            return self.counting(request)
        if refused := refusal_of(request):
            return error(400, "invalid_request_error", refused)
        return Answer(200, {"input_tokens": len(json.dumps(request)) // 4})

    def __enter__(self) -> MessagesServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: MessagesServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        match self.path.partition("?")[0]:
            case "/v1/messages":
                self.server.received.append(request)
                refused = refusal_of(request)
                answer = error(400, "invalid_request_error", refused) if refused else self.server.answer_to(request)
            case "/v1/messages/count_tokens":
                self.server.counted.append(request)
                answer = self.server.count_of(request)
            case path:
                answer = Answer(404, _error("not_found_error", path))
        try:
            self._stream(answer) if answer.status == 200 and answer.body is None else self._plain(answer)
        except ConnectionError:
            # How a client that leaves without reading all looks from here.
            self.server.left.set()
            raise

    def _plain(self, answer: Answer) -> None:
        body = answer.body.encode() if answer.html else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("content-type", "text/html" if answer.html else "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("request-id", "req_1")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Answer) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        if not self.server.keeps_alive:
            self.send_header("connection", "close")
        self.end_headers()
        for event in answer.events:
            self._chunk((event if isinstance(event, str) else _as_event(event)).encode("utf-8", "surrogatepass"))
        match answer.then:
            case "end":
                self._chunk(b"")
            case "cut":
                self.close_connection = True
            case "wait":
                self.close_connection = True
                if self.rfile.read(1) == b"":
                    self.server.left.set()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Stay silent."""

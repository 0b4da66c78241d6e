"""The sessions of the Managed Agents API on loopback: it keeps them as the API does, and plays the turns of a script.

Its answers are built from the SDK's types, so a wrong shape fails here. Requests are checked the same way.
A turn is a sequence of steps; see :mod:`tests.providers.agents_script`. Without a script the agent says what it heard.
"""

from __future__ import annotations

import json
import queue
import select
import socket
import sys
import threading
from collections import defaultdict, deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from anthropic.types.beta import BetaManagedAgentsDeletedSession, BetaManagedAgentsSession
from anthropic.types.beta.sessions import BetaManagedAgentsSendSessionEvents
from attrs import define, field, frozen
from pydantic import ValidationError

from tests.providers.agents_script import TYPES, Act, Odd, Raw, Step, built, deleted, idle, said, terminated, turn

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PREVIEWS = ("event_start", "event_delta")
ANSWERS = {
    "user.tool_result": "tool_use_id",
    "user.custom_tool_result": "custom_tool_use_id",
    "user.tool_confirmation": "tool_use_id",
}
OPERATIONS = {
    ("POST", False, ""): "create",
    ("GET", True, ""): "retrieve",
    ("DELETE", True, ""): "delete",
    ("POST", True, "archive"): "archive",
    ("POST", True, "events"): "send",
    ("GET", True, "events"): "list",
    ("GET", True, "events/stream"): "stream",
}
"""The operation of each method and path, with or without the id of a session."""


@frozen
class Refusal:
    """A request that goes wrong.

    Attributes:
        status: the HTTP status; None: the connection breaks.
        kind: the API's type of error; None: a gateway's error page.
        told: its message.
        done: whether the operation is done although it fails.
        code: the API's code for it.
        hangs: whether there is no answer until the client goes away.
        body: the whole answer, whatever it is; with status 200 it stands for the answer of a gateway.
        content_type: what that says it is.
    """

    status: int | None = None
    kind: str | None = None
    told: str = "told by the API"
    done: bool = False
    code: str | None = None
    hangs: bool = False
    body: bytes | None = None
    content_type: str = "application/json"


@define(eq=False)
class Session:
    """One session."""

    id: str
    created: dict[str, Any]
    status: str = "idle"
    archived_at: str | None = None
    is_deleted: bool = False
    log: list[dict[str, Any]] = field(factory=list)
    streams: list[Stream] = field(factory=list)
    pending: set[str] = field(factory=set)
    rest: deque[Step] = field(factory=deque)
    waits_for: Act | None = None
    is_paused: bool = False

    def texts(self) -> list[str]:
        """The texts of the messages that the user sent to it."""
        return [
            "\n".join(block["text"] for block in entry["content"] if block["type"] == "text")
            for entry in self.log
            if entry["type"] == "user.message"
        ]


@define(eq=False)
class Stream:
    """One open stream of events."""

    previews: bool
    events: queue.SimpleQueue[Step] = field(factory=queue.SimpleQueue)


class Refused(Exception):
    """The request is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class AgentsServer(ThreadingHTTPServer):
    """The server; use it as a context manager.

    Attributes:
        received: what was asked for, oldest first: the operation, and the body or the query.
        sessions: the sessions, by id.
        page_size: how many events a page has at most.
        greets: whether a new session says that it is idle.
        heads: the headers of each request, oldest first.
        keeps_alive: whether a connection is used again; without it no thread outlives its request.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.sessions: dict[str, Session] = {}
        self.heads: list[Any] = []
        self.page_size = 1000
        self.keeps_alive = True
        self.greets = False
        self.lock = threading.Condition(threading.RLock())
        self.broken: list[BaseException | None] = []
        self.is_closing = False
        self.open_streams = 0
        self.turns: deque[tuple[Step, ...]] = deque()
        self.refusals: dict[str, deque[Refusal | None]] = defaultdict(deque)
        self._clock = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def is_used_up(self) -> bool:
        """Whether all that was scripted has happened."""
        return not self.turns and not any(self.refusals.values())

    def will(self, *turns: tuple[Step, ...]) -> None:
        """Script the next turns."""
        self.turns.extend(turns)

    def refuses(self, operation: str, *refusals: Refusal | None) -> None:
        """Let the next requests of this kind go wrong; None: this one goes right."""
        self.refusals[operation].extend(refusals)

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests of one operation."""
        return [asked for name, asked in self.received if name == operation]

    def wait_for(self, operation: str, count: int = 1) -> bool:
        """Wait until so many requests of this kind have come."""
        with self.lock:
            return self.lock.wait_for(lambda: len(self.asked(operation)) >= count, 10)

    def wait_until_left(self) -> bool:
        """Wait until no stream is open."""
        with self.lock:
            return self.lock.wait_for(lambda: self.open_streams == 0, 10)

    def session(self, number: int = -1) -> Session:
        """The session that was created as this one, by default the last."""
        return list(self.sessions.values())[number]

    def archive(self, session: Session) -> None:
        session.archived_at = BEGINNING.isoformat()

    def terminate(self, session: Session) -> None:
        with self.lock:
            self.emit(session, terminated())

    def delete(self, session: Session) -> None:
        with self.lock:
            self.emit(session, deleted())

    def go_on(self, session: Session) -> None:
        """Play what was held back."""
        with self.lock:
            self._play(session)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong in the server itself, for the test to see."""
        self.broken.append(sys.exception())

    def __enter__(self) -> AgentsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing = True
        self.shutdown()
        self._thread.join()
        self.server_close()

    # What it does, under the lock

    def do(self, operation: str, session_id: str | None, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked for; what to answer."""
        if operation == "create":
            return self._create(asked)
        session = self.found(session_id)
        if operation == "send":
            return self._send(session, asked["events"])
        if operation == "list":
            return self.list(session, asked)
        if session.waits_for is Act.UNTIL_ASKED:
            self._play(session)
        if operation == "archive":
            self.archive(session)
        if operation == "delete":
            self.emit(session, deleted())
            return built(BetaManagedAgentsDeletedSession, {"id": session.id, "type": "session_deleted"})
        return self._described(session)

    def refusal(self, operation: str) -> Refusal | None:
        refusals = self.refusals[operation]
        return refusals.popleft() if refusals else None

    def found(self, session_id: str | None) -> Session:
        session = self.sessions.get(session_id or "")
        if session is None or session.is_deleted:
            raise Refused(Refusal(404, "not_found_error", f"no session {session_id}"))
        return session

    def opened(self, session: Session, stream: Stream) -> None:
        session.streams.append(stream)
        if self.greets and not session.log:
            self.emit(session, idle())
        self.open_streams += 1
        if session.waits_for is Act.UNTIL_OPEN:
            self._play(session)

    def left(self, session: Session, stream: Stream) -> None:
        if stream in session.streams:
            session.streams.remove(stream)
        self.open_streams -= 1
        self.lock.notify_all()

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        metadata = asked.get("metadata", {})
        if len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
            raise Refused(Refusal(400, "invalid_request_error", "metadata: too long"))
        session = Session(f"sesn_{len(self.sessions) + 1}", asked)
        self.sessions[session.id] = session
        return self._described(session)

    def _described(self, session: Session) -> dict[str, Any]:
        agent = session.created["agent"]
        values = {
            "id": session.id,
            "type": "session",
            "agent": {
                "type": "agent",
                "id": agent if isinstance(agent, str) else agent["id"],
                "version": 1,
                "name": "Agent",
                "model": {"id": "claude-sonnet-5-5"},
                "execution_identity": {"type": "service_account"},
                "mcp_servers": [],
                "skills": [],
                "tools": [],
            },
            "environment_id": session.created["environment_id"],
            "metadata": session.created.get("metadata", {}),
            "status": session.status,
            "archived_at": session.archived_at,
            "created_at": BEGINNING,
            "updated_at": BEGINNING,
            "outcome_evaluations": [],
            "resources": [],
            "stats": {},
            "usage": {},
            "vault_ids": [],
        }
        return built(BetaManagedAgentsSession, values)

    def list(self, session: Session, asked: dict[str, Any]) -> dict[str, Any]:
        since = datetime.fromisoformat(asked.get("created_at[gte]", BEGINNING.isoformat()))
        events = [entry for entry in session.log if _when(entry) >= since]
        if asked.get("order") == "desc":
            events.reverse()
        start, size = int(asked.get("page", 0)), min(int(asked.get("limit", 1000)), self.page_size)
        following = str(start + size) if start + size < len(events) else None
        return {"data": events[start : start + size], "next_page": following}

    def _send(self, session: Session, events: list[dict[str, Any]]) -> dict[str, Any]:
        if session.archived_at is not None or session.status == "terminated":
            raise Refused(Refusal(400, "invalid_request_error", "the session takes no events any more"))
        try:
            checked = [self.stamped(sent) for sent in events]
        except (ValidationError, AssertionError, KeyError) as wrong:
            raise Refused(Refusal(400, "invalid_request_error", str(wrong))) from None
        answers = {sent[ANSWERS[sent["type"]]] for sent in events if sent["type"] in ANSWERS}
        speaks = any(sent["type"] == "user.message" for sent in events)
        if not answers <= session.pending or (speaks and session.pending != answers):
            raise Refused(Refusal(400, "invalid_request_error", f"waiting for {sorted(session.pending)}"))
        if session.is_paused:
            raise Refused(Refusal(400, "invalid_request_error", "the budget is used up"))
        for sent in checked:
            self.push(session, sent)
        if any(sent["type"] == "user.interrupt" for sent in events):
            self._interrupt(session)
        elif session.pending - answers:
            self.emit(session, idle("requires_action", waits=tuple(sorted(session.pending - answers))))
        else:
            session.pending.clear()
            session.rest.extend(self.turns.popleft() if self.turns else _echo(events))
            self._play(session)
        return built(BetaManagedAgentsSendSessionEvents, {"data": checked})

    def _interrupt(self, session: Session) -> None:
        if session.status == "running":
            self._play(session)
        if session.status == "running" and not session.rest:
            self.emit(session, idle())

    def _play(self, session: Session) -> None:
        session.waits_for = None
        while session.rest:
            step = session.rest.popleft()
            if isinstance(step, Raw):
                for stream in session.streams:
                    stream.events.put(step)
            elif not isinstance(step, Act):
                self.emit(session, step)
            elif step in {Act.HOLD, Act.UNTIL_OPEN, Act.UNTIL_ASKED}:
                session.waits_for = step
                return
            else:
                for stream in session.streams:
                    stream.events.put(step)
                session.streams.clear()

    def emit(self, session: Session, template: dict[str, Any]) -> None:
        self.push(
            session, built(TYPES[template["type"]], template) if _is_preview(template) else self.stamped(template)
        )

    def stamped(self, template: dict[str, Any]) -> dict[str, Any]:
        self._clock += 1
        when = BEGINNING + timedelta(seconds=self._clock)
        if isinstance(template, Odd):
            return Odd({"id": f"sevt_{self._clock}", "processed_at": when.isoformat(), **template})
        return built(TYPES[template["type"]], {"id": f"sevt_{self._clock}", "processed_at": when, **template})

    def push(self, session: Session, entry: dict[str, Any]) -> None:
        match entry.get("type"):
            case "session.status_running":
                session.status = "running"
            case "session.status_idle" if isinstance(entry, Odd):
                session.status = "idle"
            case "session.status_idle":
                session.status = "idle"
                session.is_paused = entry["stop_reason"]["type"] == "budget_reached"
                session.pending = set(entry["stop_reason"].get("event_ids", ()))
            case "session.status_terminated":
                session.status = "terminated"
            case "session.deleted":
                session.is_deleted = True
        if not _is_preview(entry):
            session.log.append(entry)
        for stream in session.streams:
            if stream.previews or not _is_preview(entry):
                stream.events.put(entry)
            if entry.get("type") == "session.deleted":
                stream.events.put(Act.END)


def _as_sse(step: Step) -> bytes:
    assert isinstance(step, dict)
    return f"event: {step.get('type', 'message')}\ndata: {json.dumps(step)}\n\n".encode()


def _when(entry: dict[str, Any]) -> datetime:
    when = entry["processed_at"]
    if not isinstance(when, str) or not when.startswith("2026"):
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromisoformat(when).replace(tzinfo=UTC)


def _is_preview(entry: dict[str, Any]) -> bool:
    return entry.get("type") in PREVIEWS and not isinstance(entry, Odd)


def _echo(events: list[dict[str, Any]]) -> tuple[Step, ...]:
    """Return the agent's answer without a script: the last line of the message."""
    texts = [block["text"] for sent in events for block in sent.get("content", ()) if block["type"] == "text"]
    return turn(said(f"You said: {texts[-1] if texts else '…'}"))


class _Handler(BaseHTTPRequestHandler):
    server: AgentsServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self._do(json.loads(body) if body else {})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self._do({name: values if name.endswith("[]") else values[0] for name, values in query.items()})

    def do_DELETE(self) -> None:
        self._do({})

    def _do(self, asked: dict[str, Any]) -> None:
        operation, session_id = self._operation()
        server = self.server
        with server.lock:
            server.received.append((operation, asked))
            server.heads.append(self.headers)
            server.lock.notify_all()
            refusal = server.refusal(operation)
            answer, status = None, 200
            try:
                if refusal is not None and not refusal.done:
                    raise Refused(refusal)
                if operation == "stream":
                    server.found(session_id)
                else:
                    answer = server.do(operation, session_id, asked)
                if refusal is not None:
                    raise Refused(refusal)
            except Refused as refused:
                refusal = refused.refusal
                status = refusal.status or 0
        if refusal is not None and refusal.hangs:
            self.rfile.read(1)
        if not status:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif refusal is not None:
            self._refuse(refusal, status)
        elif operation == "stream":
            self._stream(server.sessions[str(session_id)], previews="event_deltas[]" in asked)
        else:
            self._answer(status, json.dumps(answer).encode(), "application/json")

    def _operation(self) -> tuple[str, str | None]:
        assert "managed-agents-2026-04-01" in self.headers["anthropic-beta"]
        path = urlsplit(self.path).path.removeprefix("/v1/sessions").strip("/")
        session_id, _, rest = path.partition("/")
        operation = OPERATIONS[self.command, bool(session_id), rest]
        return operation, session_id or None

    def _refuse(self, refusal: Refusal, status: int) -> None:
        if refusal.body is not None:
            self._answer(status, refusal.body, refusal.content_type)
            return
        if refusal.kind is None:
            self._answer(status, b"<html>told by a gateway</html>", "text/html")
            return
        details = {"details": {"error_code": refusal.code}} if refusal.code else {}
        body = {"type": "error", "error": {"type": refusal.kind, "message": refusal.told, **details}}
        self._answer(status, json.dumps(body).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("request-id", "req_1")
        if not self.server.keeps_alive:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, session: Session, *, previews: bool) -> None:
        stream = Stream(previews)
        with self.server.lock:
            self.server.opened(session, stream)
        try:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._chunk(b"event: ping\ndata: {}\n\n")
            self._events(stream)
        finally:
            with self.server.lock:
                self.server.left(session, stream)

    def _events(self, stream: Stream) -> None:
        while not self.server.is_closing:
            try:
                step = stream.events.get(timeout=0.01)
            except queue.Empty:
                if self._is_left():
                    self.close_connection = True
                    return
                continue
            if step is Act.END:
                self._chunk(b"")
                return
            if step is Act.CUT:
                self.close_connection = True
                return
            self._chunk(step.data if isinstance(step, Raw) else _as_sse(step))

    def _is_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Stay silent."""

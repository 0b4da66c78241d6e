"""The process of the Claude CLI: signs of life, its end, forks, threads and tasks, lines that nobody foresaw."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio

from fsm.content import as_blocks
from fsm.errors import ProviderError
from fsm.events import Event, Result, TextDelta
from fsm.provider import Request
from fsm.providers import ClaudeAgent
from tests.providers.claude_way import KEY, Claude, no_cli, require_sdk, text_of
from tests.providers.fake_cli import RESULT, fake_cli, said
from tests.providers.messages_server import Answer, begun, message, streamed, text, tool_use

sdk = require_sdk()

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

ENDLESS = Answer(events=(*begun("msg_endless"), *streamed(text("Once upon a time."))[:2]), then="wait")


def request(content: Any = "hello", **more: Any) -> Request:
    return Request(key=KEY, turn=1, session_number=1, content=as_blocks(content), **more)


def faked(folder: Path, *steps: Any, timeout: float = 20.0, **options: Any) -> ClaudeAgent:
    path = fake_cli(folder, *steps)
    return ClaudeAgent(sdk.ClaudeAgentOptions(cwd=folder, cli_path=path, **options), timeout=timeout)


def asked(agent: ClaudeAgent, **more: Any) -> tuple[str, Result]:
    """Return its text and its result."""
    *events, result = agent.stream(request(**more))
    assert isinstance(result, Result)
    return text_of(events), result


# Signs of life


class Pulse:
    """Counts signs of life."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_the_work_of_a_subagent_is_a_sign_of_life(claude: Claude) -> None:
    """Nothing of it is an event; G24."""
    pulse, counts = Pulse(), []

    def answer(given: dict[str, Any]) -> Answer:
        counts.append(pulse.count)
        number, told = len(claude.server.received), str(given["messages"])
        if "SUBTASK" in str(given["messages"][0]) and "Do the job" not in str(given["messages"][0]):
            if len(counts) < 5:
                call = tool_use(f"toolu_{number}", "Bash", command="echo step")
                return message(call, stop="tool_use", id=f"msg_{number}")
            return message(text("The subtask is done."), id=f"msg_{number}")
        if "toolu_main" in told:
            return message(text("The job is done."), id=f"msg_{number}")
        call = tool_use(
            "toolu_main", "Agent", description="d", prompt="SUBTASK", subagent_type="general-purpose",
            run_in_background=False,
        )  # fmt: skip
        return message(call, stop="tool_use", id=f"msg_{number}")

    claude.server.otherwise = answer
    agent = claude.agent(allowed_tools=["Agent", "Task", "Bash"])
    events = list(agent.stream(request("Do the job", alive=pulse)))
    assert text_of(events) == "The job is done."
    assert counts == sorted(set(counts)), "each step of the subagent was heard"
    assert pulse.count > len(events)


def test_a_line_that_the_sdk_drops_is_a_sign_of_life_and_no_silence(tmp_path: Path) -> None:
    """The CLI beats while a tool runs, and while it waits for an answer of the application."""
    beat = {"type": "tool_progress", "tool_use_id": "t", "tool_name": "Bash", "elapsed_time_seconds": 30}
    pulse = Pulse()
    agent = faked(
        tmp_path, *[step for _ in range(6) for step in (0.5, beat, {"type": "keep_alive"})], RESULT, timeout=2
    )
    assert asked(agent, alive=pulse)[1].text == "Hello."
    assert pulse.count >= 13


# The end


@pytest.mark.parametrize("backend", ["sync", "asyncio", "trio"])
def test_the_result_does_not_wait_for_a_cli_that_hangs_at_its_end(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsm.providers.claude_agent.exchange.GRACE", 0.2)
    agent = faked(tmp_path, *said("Hello."), RESULT, 0)

    async def aask() -> list[tuple[Event, bool]]:
        return [(event, no_cli()) async for event in agent.astream(request())]

    seen = (
        [(event, no_cli()) for event in agent.stream(request())]
        if backend == "sync"
        else anyio.run(aask, backend=backend)
    )
    assert [type(event) for event, _ in seen] == [TextDelta, Result]
    assert not seen[-1][1], "the CLI was not waited for"
    assert no_cli()


HANGING = """
import sys
from fsm.content import as_blocks
from fsm.provider import Request
from fsm.providers import ClaudeAgent
import claude_agent_sdk as sdk
import fsm.providers.claude_agent.exchange as exchange
exchange.GRACE = 0.2
request = Request(key="k", turn=1, session_number=1, content=as_blocks("hello"))
stream = ClaudeAgent(sdk.ClaudeAgentOptions(cli_path=sys.argv[1])).stream(request)
for event in stream:
    print(type(event).__name__, flush=True)
    if type(event).__name__ == sys.argv[2]:
        break
"""


@pytest.mark.parametrize("until", ["TextDelta", "Result"])
def test_a_stream_that_is_left_open_does_not_hold_up_the_exit_of_the_process(until: str, tmp_path: Path) -> None:
    path = fake_cli(tmp_path, *said("Hello."), *([RESULT] if until == "Result" else []), 0)
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(path), until],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.split()[-1] == until


def test_a_stream_can_be_closed_from_another_thread(claude: Claude) -> None:
    claude.server.will(ENDLESS)
    stream = claude.agent().stream(request())
    assert next(stream) == TextDelta("Once upo")
    thread = threading.Thread(target=stream.close)
    thread.start()
    thread.join(60)
    assert no_cli()
    assert claude.server.left.wait(10)


async def in_another_task(close: Callable[[], Any]) -> None:
    """Close from a task that read nothing, and that ends in another context."""
    if sniffio.current_async_library() == "asyncio":
        await asyncio.create_task(close())
        return
    async with anyio.create_task_group() as group:
        group.start_soon(close)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("answered", [False, True])
def test_a_stream_can_be_closed_from_another_task(backend: str, answered: bool, claude: Claude) -> None:
    claude.server.will(message(text("Hello."), id="msg_1") if answered else ENDLESS)

    async def leave() -> list[Event]:
        stream: AsyncGenerator[Event, None] = claude.agent().astream(request())
        events = [await anext(stream)]
        while answered and not isinstance(events[-1], Result):
            events.append(await anext(stream))
        with anyio.fail_after(60):
            await in_another_task(stream.aclose)
        assert no_cli()
        return events

    assert anyio.run(leave, backend=backend)


def test_each_event_may_be_read_by_another_task(claude: Claude) -> None:
    async def read() -> list[Event]:
        stream = claude.agent().astream(request())
        events: list[Event] = []

        async def one() -> None:
            events.append(await anext(stream))

        while not events or not isinstance(events[-1], Result):
            await asyncio.create_task(one())
        await stream.aclose()
        return events

    assert text_of(asyncio.run(read())) == "Answer 1."


def test_the_result_is_the_last_event_though_more_results_may_come(claude: Claude) -> None:
    """An agent in the background ends after the first result; the CLI answers that with one more."""
    call = tool_use(
        "toolu_bg", "Agent", description="d", prompt="SUBTASK", subagent_type="general-purpose", run_in_background=True
    )

    def answer(given: dict[str, Any]) -> Answer:
        number, first = len(claude.server.received), str(given["messages"][0])
        if "SUBTASK" in first and "Delegate" not in first:
            time.sleep(1.5)
            return message(text("Found."), id=f"msg_{number}")
        if "toolu_bg" in str(given["messages"]):
            return message(text(f"Answer {number}."), id=f"msg_{number}")
        return message(text("I delegate."), call, stop="tool_use", id=f"msg_{number}")

    claude.server.otherwise = answer
    events = list(claude.agent(allowed_tools=["Agent", "Task"]).stream(request("Delegate")))
    assert [isinstance(event, Result) for event in events].count(True) == 1
    last = events[-1]
    assert isinstance(last, Result)
    assert text_of(events).endswith(str(last.text))
    assert len(claude.server.received) >= 4


# Forks, threads and event loops


def forked(work: Callable[[], object]) -> int:
    """Run this in a forked child, which ends as any Python program does; its exit code."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_stream_that_a_forked_child_inherits_is_inert_there(claude: Claude) -> None:
    claude.server.will(message(text("Once upon a time."), id="msg_1"))
    held: list[Iterator[Event]] = [claude.agent().stream(request())]
    events = [next(held[0])]

    def read() -> None:
        with pytest.raises(ProviderError, match="belongs to the parent of this process"):
            next(held[0])

    for work in (read, held[0].close, held.clear):  # type: ignore[attr-defined]  # it is a generator
        assert forked(work) == 0
    events += held[0]
    assert text_of(events) == "Once upon a time."
    assert isinstance(events[-1], Result)
    assert events[-1].trigger.value == "succeeded"


EXITING = """
import os, sys
from fsm.content import as_blocks
from fsm.provider import Request
from fsm.providers import ClaudeAgent
import claude_agent_sdk as sdk
request = Request(key="k", turn=1, session_number=1, content=as_blocks("hello"))
stream = ClaudeAgent(sdk.ClaudeAgentOptions(cli_path=sys.argv[1])).stream(request)
next(stream)
if os.fork() == 0:
    sys.exit(0)
os.wait()
*_, result = stream
print(result.text)
"""


def test_a_forked_child_that_exits_does_not_end_the_cli_of_its_parent(tmp_path: Path) -> None:
    """The SDK ends every CLI that it knows of when a process exits."""
    path = fake_cli(tmp_path, *said("Hello."), 1.0, RESULT)
    done = subprocess.run(
        [sys.executable, "-c", EXITING, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "Hello.\n", done.stderr


def test_one_provider_works_in_many_threads_and_event_loops_at_once(claude: Claude) -> None:
    agent = claude.agent()

    async def aask() -> Event:
        return [event async for event in agent.astream(request())][-1]

    with ThreadPoolExecutor(4) as pool:
        asks = [
            pool.submit(lambda: anyio.run(aask, backend="asyncio")),
            pool.submit(lambda: anyio.run(aask, backend="trio")),
            pool.submit(lambda: list(agent.stream(request()))[-1]),
            pool.submit(lambda: list(agent.stream(request()))[-1]),
        ]
        results = [ask.result(60) for ask in asks]
    results += [anyio.run(aask, backend=backend) for backend in ("asyncio", "trio")]
    assert [result.trigger.value for result in results if isinstance(result, Result)] == ["succeeded"] * 6
    assert len({result.session_id for result in results if isinstance(result, Result)}) == 6


# Lines that nobody foresaw

NONSENSE: list[Any] = [
    "this is no JSON",
    {"type": "never_heard_of", "data": 1},
    {"type": "system", "subtype": "never_heard_of"},
    {"type": "system"},
    {"type": "system", "subtype": "task_started", "task_id": None},
    {"type": "assistant", "message": {"id": "m9", "model": "m", "content": None}},
    {"type": "assistant", "message": None},
    {
        "type": "assistant",
        "message": {"model": "m", "content": [{"type": "tool_use", "id": None, "name": 1, "input": 2}]},
    },
    {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": 7, "content": None}]}},
    {"type": "stream_event", "uuid": "u", "session_id": "s", "event": None},
    {"type": "stream_event", "uuid": "u", "session_id": "s", "event": {"type": "message_start"}},
    {"type": "stream_event", "uuid": "u", "session_id": "s", "event": {"type": "content_block_delta", "delta": None}},
    {"type": "rate_limit_event", "rate_limit_info": None},
    {"type": "system", "subtype": "session_writes_lost", "lost": None},
    {"type": "system", "subtype": "informational"},
    {"type": "system", "subtype": "task_updated", "patch": 3},
]


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: str(line)[:60])
def test_a_line_that_nobody_foresaw_costs_no_answer(line: Any, tmp_path: Path) -> None:
    told, result = asked(faked(tmp_path, line, *said("Hello."), line, RESULT))
    assert (told, result.session_id) == ("Hello.", RESULT["session_id"])


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"usage": None}, {"usage": None, "cost_usd": None}),
        ({"usage": "much"}, {"usage": None}),
        ({"usage": {"input_tokens": float("nan")}}, {"usage": None}),
        ({"total_cost_usd": "1"}, {"cost_usd": None}),
        ({"errors": None, "stop_reason": 3}, {"errors": (), "stop_reason": None}),
        ({"session_id": 7}, {"session_id": None}),
        ({"session_id": None}, {"session_id": None}),
        ({"result": {"text": "Hello."}}, {"text": None}),
        ({"api_error_status": "400", "terminal_reason": 4}, {"http_status": None}),
        ({"num_turns": None, "duration_ms": "x", "origin": 3}, {"text": "Hello."}),
        ({"subtype": None}, {"subtype": "error_response", "is_error": True}),
    ],
)
def test_a_result_with_a_field_of_another_type_is_still_a_result(
    fields: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    told, result = asked(faked(tmp_path, *said("Hello."), RESULT | fields))
    assert told == "Hello."
    assert {name: getattr(result, name) for name in kept} == kept


@pytest.mark.parametrize("missing", ["duration_ms", "num_turns", "usage", "stop_reason", "session_id", "subtype"])
def test_a_result_that_lacks_a_field_is_still_a_result(missing: str, tmp_path: Path) -> None:
    partial = {name: value for name, value in RESULT.items() if name != missing}
    told, result = asked(faked(tmp_path, *said("Hello."), partial))
    assert told == "Hello."
    assert result.text == ("Hello." if missing != "subtype" else None)


def test_a_cli_whose_result_cannot_be_read_says_of_which_type_the_error_was(tmp_path: Path) -> None:
    stream = faked(tmp_path, *said("Hello."), '{"type": "result", ').stream(request())
    assert next(stream) == TextDelta("Hello.")
    with pytest.raises(ProviderError, match="the Claude Agent SDK raised CLIJSONDecodeError"):
        next(stream)


def test_a_line_that_is_too_long_names_the_option(tmp_path: Path) -> None:
    agent = faked(tmp_path, *said("x" * 3000), RESULT, max_buffer_size=2000)
    with pytest.raises(ProviderError, match=r"printed a line that is too long.*raise options\.max_buffer_size"):
        list(agent.stream(request()))


def test_a_line_of_some_megabytes_is_no_fault(tmp_path: Path) -> None:
    """A picture or a document that a tool has read; the SDK's own limit is 1 MiB."""
    read = {"type": "tool_result", "tool_use_id": "t1", "content": "x" * 3 * 2**20}
    *events, result = faked(tmp_path, {"type": "user", "message": {"content": [read]}}, RESULT).stream(request())
    assert isinstance(result, Result)
    assert result.text == "Hello."
    assert len(events) == 1

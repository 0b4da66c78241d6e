"""A new session is told what fits: never nothing while there is something to tell, and less when that was too much."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import pytest

from fsm import (
    AsyncSessionManager,
    ContextWindow,
    Message,
    Reply,
    Request,
    Result,
    SessionManager,
    TextDelta,
    ToolUse,
    TurnStatus,
)
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore

pytestmark = pytest.mark.thorough

TASK = "Please review the whole repository and never touch the folder /prod"
WINDOW = ContextWindow(max_messages=20, max_characters=1000)
TOO_LARGE = Result(subtype="error_context_window", is_error=True, http_status=400)


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


def size(history: Sequence[Message]) -> int:
    """The characters of a history."""
    return sum(len(message.text) for message in history)


def told(request: Request) -> str:
    """All that a request tells of the past."""
    return "\n".join(message.text for message in request.history)


def answer(text: str = "yes") -> Callable[[Request], Any]:
    """Answers in a session that is named after its number."""
    return lambda request: [TextDelta(text), Result(session_id=f"s-{request.session_number}")]


# Never empty


def after_calls(store: Any, calls: int, window: ContextWindow) -> Request:
    """The first request of a new session after a turn of so many tool calls, whose results came one by one."""

    def call(request: Request) -> Any:
        number = request.turn
        return [
            TextDelta(f"step {number}"),
            ToolUse(f"t{number}", "read_file", {"path": f"f{number}"}),
            Result(session_id="s-1", stop_reason="tool_use"),
        ]

    provider = DemoProvider([call] * calls + [answer()] * 2)
    sessions = SessionManager(store, provider, context=window)
    sessions.send("k", TASK)
    for number in range(1, calls + 1):
        content = [{"type": "tool_result", "tool_use_id": f"t{number}", "content": f"content of f{number}"}]
        sessions.send("k", content)
    sessions.reset("k")
    sessions.send("k", "and now?")
    return provider.requests[-1]


@pytest.mark.parametrize("calls", [5, 9, 10, 11, 25, 51, 60])
def test_a_unit_of_many_tool_calls_keeps_its_first_message_and_its_newest_part(store: Any, calls: int) -> None:
    request = after_calls(store, calls, ContextWindow(max_messages=20, max_characters=100_000))
    assert 0 < len(request.history) <= 20
    assert request.history[0].role == "user"
    assert TASK in request.history[0].text
    assert f"content of f{calls}" in told(request)
    assert request.history[-1].role == "assistant"


@pytest.mark.parametrize("calls", [49, 51, 60])
def test_the_default_window_tells_of_more_calls_than_it_has_messages(calls: int) -> None:
    request = after_calls(ReferenceStore(), calls, ContextWindow())
    assert 0 < len(request.history) <= 100
    assert TASK in request.history[0].text
    assert f"content of f{calls}" in told(request)


def after_texts(store: Any, texts: list[str], window: ContextWindow = WINDOW, *, said: str = "yes") -> Request:
    """The first request of a new session after these messages."""
    provider = DemoProvider([answer(said)] * (len(texts) + 1))
    sessions = SessionManager(store, provider, context=window)
    for text in texts:
        sessions.send("k", text)
    sessions.reset("k")
    sessions.send("k", "what may I not eat?")
    return provider.requests[-1]


ANN = "I am Ann, allergic to nuts"
LONG = "y" * 5000
PLACES = {
    "first": [LONG, ANN],
    "last": [ANN, "x", "x", LONG],
    "in the middle": [ANN, LONG, "x", "x"],
    "alone": [LONG],
    "everywhere": [LONG] * 4,
}


@pytest.mark.parametrize("texts", PLACES.values(), ids=PLACES)
def test_a_text_that_is_larger_than_the_window_leaves_something_to_tell(store: Any, texts: list[str]) -> None:
    request = after_texts(store, texts)
    assert request.history
    assert 0 < size(request.history) <= 1000
    assert request.history[0].role == "user"
    assert request.history[-1].role == "assistant"
    assert request.history[-1].text.endswith("yes")


def test_what_was_said_after_a_long_text_is_told(store: Any) -> None:
    request = after_texts(store, [LONG, ANN])
    assert ANN in told(request)


def test_a_text_that_is_cut_says_so(store: Any) -> None:
    request = after_texts(store, [LONG])
    (text,) = [message.text for message in request.history if message.role == "user"]
    assert text.startswith("yyy")
    mark = text.replace("y", "").strip()
    assert mark, "the text was cut without a word"
    whole = after_texts(ReferenceStore(), ["y" * 300])
    assert [message.text for message in whole.history if message.role == "user"] == ["y" * 300]


def test_an_answer_that_is_larger_than_the_window_is_cut_and_its_question_is_told(store: Any) -> None:
    request = after_texts(store, [ANN], said=LONG)
    assert 0 < size(request.history) <= 1000
    assert ANN in request.history[0].text
    assert "y" * 100 in request.history[-1].text


def test_of_many_tiny_messages_the_newest_are_told(store: Any) -> None:
    request = after_texts(store, [f"tiny {number}" for number in range(60)])
    users = [message.text for message in request.history if message.role == "user"]
    assert len(request.history) == 20
    assert users == [f"tiny {number}" for number in range(50, 60)]


@pytest.mark.parametrize(
    "window",
    [
        ContextWindow(max_messages=1),
        ContextWindow(max_messages=2),
        ContextWindow(max_messages=3),
        ContextWindow(max_characters=1),
        ContextWindow(max_characters=50),
        ContextWindow(max_messages=2, max_characters=100),
    ],
)
def test_a_tiny_window_is_kept_to_and_takes_no_turn_down(store: Any, window: ContextWindow) -> None:
    request = after_texts(store, [ANN, "x" * 300, LONG], window)
    assert len(request.history) <= window.max_messages
    assert size(request.history) <= window.max_characters


def test_a_window_of_nothing_tells_nothing(store: Any) -> None:
    assert after_texts(store, [ANN], ContextWindow(max_messages=0)).history == ()
    assert after_texts(ReferenceStore(), [ANN], ContextWindow(max_characters=0)).history == ()


# Smaller, until it fits


class Small(DemoProvider):
    """Refuses a new session that is told more than it holds; its sessions die when they are told to.

    Args:
        holds: how many characters of the past it takes.
        hands_out: whether it says a word before it refuses.
    """

    def __init__(self, holds: int, *, hands_out: bool = False) -> None:
        super().__init__()
        self.holds = holds
        self.hands_out = hands_out
        self.dies = False

    def stream(self, request: Request) -> Iterator[Any]:
        self.requests.append(request)
        if request.session_id is not None and self.dies:
            self.dies = False
            yield Result(subtype=EXPIRED, is_error=True, session_id=request.session_id)
        elif request.session_id is None and size(request.history) > self.holds:
            if self.hands_out:
                yield TextDelta("I begin ")
            yield TOO_LARGE
        else:
            yield TextDelta("yes")
            yield Result(session_id=request.session_id or f"s-{request.turn}-{len(self.requests)}")

    def sizes(self) -> list[int]:
        """How much each new session was told since this was last asked."""
        found = [size(request.history) for request in self.requests if request.session_id is None]
        self.requests.clear()
        return found


SENT = "long " * 1000
FULL = 40 * (len(SENT) + 3)


def talked(store: Any, provider: Small, **options: Any) -> SessionManager:
    """A manager with a conversation of forty messages behind it, 200,000 characters."""
    sessions = SessionManager(store, provider, **options)
    for _ in range(40):
        sessions.send("k", SENT)
    provider.sizes()
    return sessions


def die(sessions: SessionManager, provider: Small, how: str) -> None:
    """The session is lost: by a reset, or dead when it is resumed."""
    if how == "reset":
        sessions.reset("k")
    else:
        provider.dies = True


def check_smaller(sizes: list[int], holds: int) -> None:
    """Each try is told less, the last one what fits, and none is told nothing."""
    assert sizes[0] == FULL
    assert sizes == sorted(set(sizes), reverse=True)
    assert 0 < sizes[-1] <= holds
    assert len(sizes) <= 5, "more than four times"


@pytest.mark.parametrize("how", ["reset", "dead"])
@pytest.mark.parametrize("share", [1.5, 2, 3, 6, 15])
def test_a_new_session_that_is_told_too_much_is_told_less_within_the_turn(store: Any, share: float, how: str) -> None:
    provider = Small(int(FULL / share))
    provider.holds = FULL * 2
    sessions = talked(store, provider)
    provider.holds = int(FULL / share)
    die(sessions, provider, how)
    reply = sessions.send("k", "and now?")
    assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "yes")
    assert reply.healed is (how == "dead")
    check_smaller(provider.sizes(), provider.holds)
    check_database(store)


@pytest.mark.parametrize("how", ["reset", "dead"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
def test_what_has_fitted_is_remembered_by_the_next_new_session(store: Any, how: str, restarted: bool) -> None:
    provider = Small(FULL * 2)
    sessions = talked(store, provider)
    provider.holds = FULL // 3
    die(sessions, provider, how)
    sessions.send("k", "and now?")
    fitted = provider.sizes()[-1]
    if restarted:
        sessions = SessionManager(store, provider)
    for _ in range(2):
        die(sessions, provider, how)
        assert sessions.send("k", "again").status is TurnStatus.SUCCEEDED
        sizes = provider.sizes()
        assert len(sizes) == 1, "a new session was told too much once more"
        assert sizes[0] <= provider.holds
        assert sizes[0] > fitted // 2


def test_a_new_session_is_told_less_four_times_at_most(store: Any) -> None:
    provider = Small(FULL * 2)
    sessions = talked(store, provider)
    provider.holds = -1
    sessions.reset("k")
    reply = sessions.send("k", "and now?")
    assert (reply.status, reply.text) == (TurnStatus.FAILED, "")
    assert reply.result is not None
    assert reply.result.subtype == "error_context_window"
    sizes = provider.sizes()
    assert 1 < len(sizes) <= 5
    assert sizes == sorted(set(sizes), reverse=True)
    check_database(store)


def test_the_next_turn_goes_on_from_where_the_last_one_gave_up(store: Any) -> None:
    provider = Small(FULL * 2)
    sessions = talked(store, provider)
    provider.holds = FULL // 60
    sessions.reset("k")
    statuses, sizes = [], []
    for number in range(4):
        statuses.append(sessions.send("k", f"try {number}").status)
        found = provider.sizes()
        assert len(found) <= 5
        sizes += found
        if statuses[-1] is TurnStatus.SUCCEEDED:
            break
    assert statuses[-1] is TurnStatus.SUCCEEDED
    assert sizes.count(FULL) == 1, "the whole history was told again"


def test_a_session_that_has_said_something_is_not_asked_again(store: Any) -> None:
    provider = Small(FULL * 2)
    sessions = talked(store, provider)
    provider.holds, provider.hands_out = FULL // 3, True
    sessions.reset("k")
    reply = sessions.send("k", "and now?")
    assert (reply.status, reply.text) == (TurnStatus.FAILED, "I begin ")
    assert len(provider.sizes()) == 1
    second = sessions.send("k", "and now?")
    assert FULL not in provider.sizes(), "the next turn was told as much once more"
    assert second.status in {TurnStatus.FAILED, TurnStatus.SUCCEEDED}


def test_a_resumed_session_that_is_full_is_not_told_less(store: Any) -> None:
    """It is told nothing; what is too large is not what a smaller window would mend."""
    provider = DemoProvider([answer(), TOO_LARGE, answer()])
    sessions = SessionManager(store, provider)
    sessions.send("k", "hello")
    assert sessions.send("k", "and now?").status is TurnStatus.FAILED
    assert len(provider.requests) == 2
    assert sessions.conversations.get("k").session_id == "s-1"


def test_a_first_message_that_is_too_large_is_not_sent_twice(store: Any) -> None:
    provider = DemoProvider([TOO_LARGE, answer()])
    sessions = SessionManager(store, provider)
    assert sessions.send("k", "hello").status is TurnStatus.FAILED
    assert len(provider.requests) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ["reset", "dead"])
def test_an_async_manager_tells_less_within_the_turn(store: Any, backend: str, how: str) -> None:
    provider = Small(FULL * 2)
    sessions = talked(store, provider)
    provider.holds = FULL // 3
    die(sessions, provider, how)

    async def talk() -> Reply:
        return await AsyncSessionManager(store, provider).send("k", "and now?")

    assert anyio.run(talk, backend=backend).status is TurnStatus.SUCCEEDED
    check_smaller(provider.sizes(), provider.holds)

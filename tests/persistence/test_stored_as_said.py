"""Records are read back equal: a field that is zero or empty does not become None, and none is lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from fsm import Result, SessionManager, TextDelta
from fsm.content import Block
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


BLOCKS: dict[str, Block] = {
    "marked for the cache": {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
    "with citations": {"type": "text", "text": "hello", "citations": [{"type": "char_location", "cited_text": "h"}]},
    "without citations": {"type": "text", "text": "hello", "citations": None},
    "with an empty field": {"type": "text", "text": "hello", "more": {}},
    "plain": {"type": "text", "text": "hello"},
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_text_block_keeps_its_other_fields(store: Any, block: Block, count: int) -> None:
    blocks = (block,) * count
    answer = Result(session_id="s-1", content=blocks)
    sessions = SessionManager(store, DemoProvider([[TextDelta("hello"), answer]]))
    sessions.send("k", list(blocks))
    assert [message.content for message in sessions.conversations.messages("k")] == [blocks, blocks]


@pytest.mark.parametrize("cost", [0.0, 0, 0.25, None])
def test_a_cost_of_nothing_is_not_an_unknown_cost(store: Any, cost: float | None) -> None:
    sessions = SessionManager(store, DemoProvider([Result(session_id="s-1", cost_usd=cost)]))
    sessions.send("k", "hello", idempotency_key="once")
    again = sessions.send("k", "hello", idempotency_key="once")
    assert sessions.conversations.turns("k")[0].cost_usd == cost
    assert again.result is not None
    assert again.result.cost_usd == cost


@pytest.mark.parametrize("kept", [{}, {"a": {}}, {"a": None}, None])
def test_empty_provider_data_is_not_missing_provider_data(store: Any, kept: dict[str, Any] | None) -> None:
    sessions = SessionManager(store, DemoProvider([Result(session_id="s-1", provider_data=kept)]))
    sessions.send("k", "hello")
    assert [message.provider_data for message in sessions.conversations.messages("k")] == [None, kept]


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 0}, None])
def test_empty_usage_is_not_missing_usage(store: Any, usage: dict[str, Any] | None) -> None:
    sessions = SessionManager(store, DemoProvider([Result(session_id="s-1", usage=usage)]))
    sessions.send("k", "hello", idempotency_key="once")
    again = sessions.send("k", "hello", idempotency_key="once")
    assert sessions.conversations.turns("k")[0].usage == usage
    assert again.result is not None
    assert again.result.usage == usage


@pytest.mark.parametrize("status", [0, 200, None])
def test_a_status_of_zero_is_not_a_missing_status(store: Any, status: int | None) -> None:
    sessions = SessionManager(store, DemoProvider([Result(is_error=True, http_status=status)]))
    sessions.send("k", "hello")
    assert sessions.conversations.turns("k")[0].http_status == status

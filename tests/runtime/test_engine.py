"""The number by which a store knows a new conversation."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fsm._core.validation import new_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.timedeltas(timedelta(0), timedelta(days=60 * 365)).map(NOW.__add__)


@given(now=TIMES, seed=st.integers(0, 100))
def test_a_new_conversation_is_named_by_its_millisecond_and_by_chance(now: datetime, seed: int) -> None:
    made = new_id(now, random.Random(seed))
    assert made >> 21 == int(now.timestamp() * 1000)
    assert made % 2**21 == random.Random(seed).getrandbits(21)
    assert 0 < made < 2**63
    assert made < new_id(now + timedelta(milliseconds=2), random.Random(seed))

"""A heal replaces a session that was found dead, and refuses every other result."""

import pytest

from fsm import InvalidTransition, Result
from fsm._core import decisions as decide
from tests.core.test_heal_marks_once import LEASE, NOW, holding


@pytest.mark.parametrize(
    "result",
    [
        Result(session_id="held"),
        Result(),
        Result(is_error=True, http_status=529),
        Result(subtype="error_max_turns", is_error=True, session_id="held"),
        Result(subtype="interrupted", session_id="held"),
    ],
)
def test_a_result_that_reports_no_dead_session_is_no_reason_to_heal(result: Result) -> None:
    conversation = holding("held")
    with pytest.raises(InvalidTransition):
        decide.heal(conversation, turn=2, owner="o", result=result, now=NOW, lease=LEASE)

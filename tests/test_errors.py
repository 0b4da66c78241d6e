"""The errors: what they say, and that they arrive whole in another process."""

import pickle

import pytest

from fsm import FSMError, InvalidTransition, Reply, State, TurnFailed, TurnStatus

REPLY = Reply(key="k", turn=1, text="half", state=State.ACTIVE, status=TurnStatus.INTERRUPTED)


@pytest.mark.parametrize("kind", [FSMError, InvalidTransition, TurnFailed])
def test_an_error_arrives_whole_in_another_process(kind: type[FSMError]) -> None:
    error = pickle.loads(pickle.dumps(kind("nothing to do", "k", REPLY)))
    assert error.args == ("nothing to do", "k", REPLY)
    assert (type(error), error.message, error.key, error.reply) == (kind, "nothing to do", "k", REPLY)
    assert str(error) == "conversation 'k': nothing to do"


def test_an_error_that_is_about_no_conversation_names_none() -> None:
    error = FSMError("nothing to do")
    assert (str(error), error.key, error.reply) == ("nothing to do", None, None)
    assert error.args == ("nothing to do", None, None)

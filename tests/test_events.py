"""Results: what each means for the machine and for the person at the other end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import Result, TextDelta, ToolResult, ToolUse, Trigger

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "claude-cli-results.jsonl").read_text(encoding="utf-8").splitlines()
]

MEANING = {
    "an ordinary answer": (Trigger.SUCCEEDED, "The AI has answered."),
    "resume of a session that no longer exists": (
        Trigger.EXPIRED,
        "The AI's session had ended and is being renewed; please send your message again.",
    ),
    "turn limit reached": (Trigger.FAILED, "The AI reached its limit of steps for one answer."),
    "the API answers 429": (
        Trigger.FAILED,
        "The AI is receiving too many requests at the moment; please try again in a little while.",
    ),
    "the API answers 401": (
        Trigger.FAILED,
        "The AI service is not logged in; the operator of this application must renew its key.",
    ),
    "a person interrupts the running turn": (Trigger.FAILED, "The answer was stopped."),
}


def test_every_recorded_case_has_a_meaning_here() -> None:
    assert [recorded["case"] for recorded in RECORDED] == list(MEANING)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["case"])
def test_a_result_of_the_real_cli_means_what_it_should(recorded: dict[str, Any]) -> None:
    printed = recorded["result"]
    result = Result.from_mapping(printed)
    assert (result.trigger, result.summary) == MEANING[recorded["case"]]
    assert result.session_id == printed["session_id"]
    assert result.errors == tuple(printed.get("errors", ()))
    assert result.stop_reason == printed["stop_reason"]
    assert result.usage == printed["usage"]
    assert result.cost_usd == printed["total_cost_usd"]
    assert result.http_status == printed.get("api_error_status")
    assert result.text == printed.get("result")
    assert result.raw == printed


def test_a_persons_interrupt_is_told_from_death_by_its_terminal_reason() -> None:
    """The CLI prints both with the same subtype."""
    printed = {"subtype": "error_during_execution", "is_error": True}
    assert Result.from_mapping(printed).trigger is Trigger.EXPIRED
    assert Result.from_mapping(printed | {"terminal_reason": None}).trigger is Trigger.EXPIRED
    assert Result.from_mapping(printed | {"terminal_reason": "aborted_tools"}).subtype == "interrupted"


def test_an_empty_id_names_no_session() -> None:
    """Some versions print an empty text where they have none."""
    assert Result.from_mapping({"session_id": "", "stop_reason": ""}) == Result(
        raw={"session_id": "", "stop_reason": ""}
    )


@given(
    subtype=st.sampled_from(["success", "error_during_execution", "error_max_turns", "interrupted", "anything"]),
    is_error=st.booleans(),
    http_status=st.sampled_from([None, 400, 429, 500]),
)
def test_the_trigger_is_a_function_of_subtype_and_is_error_alone(
    subtype: str, is_error: bool, http_status: int | None
) -> None:
    result = Result(subtype=subtype, is_error=is_error, http_status=http_status)
    if subtype == "error_during_execution":
        assert result.trigger is Trigger.EXPIRED
    elif is_error or subtype == "error_max_turns":
        assert result.trigger is Trigger.FAILED
    else:
        assert result.trigger is Trigger.SUCCEEDED


@given(
    subtype=st.sampled_from(["success", "error_during_execution", "error_unheard_of", "error_max_turns"]),
    http_status=st.none() | st.integers(100, 599),
    stop_reason=st.sampled_from([None, "refusal", "max_tokens", "unheard of"]),
    secret=st.just("raw exception text"),
)
def test_the_sentence_for_the_person_is_never_the_providers_text(
    subtype: str, http_status: int | None, stop_reason: str | None, secret: str
) -> None:
    result = Result(
        subtype=subtype, is_error=True, http_status=http_status, stop_reason=stop_reason, errors=[secret], text=secret
    )
    assert secret not in result.summary
    assert result.summary.endswith(".")
    assert "\n" not in result.summary


def test_a_failure_of_the_service_itself_is_told_as_such() -> None:
    assert "has a problem" in Result(is_error=True, http_status=503).summary
    assert "could not finish" in Result(is_error=True).summary


@pytest.mark.parametrize("named_by", ["subtype", "stop_reason"])
@pytest.mark.parametrize(
    ("known", "words"),
    [
        ("interrupted", "was stopped"),
        ("error_busy", "busy with an earlier message"),
        ("error_configuration", "not set up correctly"),
        ("error_connection", "can't be reached"),
        ("error_context_window", "conversation is too long"),
        ("error_response", "could not be read"),
        ("error_message", "did not accept this message"),
        ("error_max_turns", "limit of steps"),
        ("error_max_budget_usd", "spending limit"),
        ("error_max_structured_output_retries", "required form"),
        ("error_refusal", "declined"),
        ("max_tokens", "greatest length"),
        ("refusal", "declined"),
        ("requires_action", "or for leave to use one"),
        ("tool_use", "the result of a tool."),
    ],
)
def test_every_known_subtype_and_stop_reason_has_its_sentence(known: str, words: str, named_by: str) -> None:
    assert words in Result(is_error=True, **{named_by: known}).summary


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextDelta(b"bytes"),
        lambda: ToolUse("", "name"),
        lambda: ToolUse("t", "name", ["no object"]),
        lambda: ToolUse("t", "name", {"a": object()}),
        lambda: ToolResult("t", float("nan")),
        lambda: Result(subtype=""),
        lambda: Result(subtype=None),
        lambda: Result(is_error="yes"),
        lambda: Result(session_id=""),
        lambda: Result(session_id="a\0b"),
        lambda: Result(session_id="\ud800"),
        lambda: Result(session_id="x" * 513),
        lambda: Result(session_id=7),
        lambda: Result(usage={"tokens": float("inf")}),
        lambda: Result(cost_usd=float("nan")),
        lambda: Result(cost_usd="much"),
        lambda: Result(http_status="429"),
        lambda: Result(text=1),
        lambda: Result(content=({"type": "text", "text": b"bytes"},)),
        lambda: Result(provider_data={"a": {1, 2}}),
    ],
)
def test_what_no_database_could_hold_can_not_become_an_event(make: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_result_keeps_its_usage_if_the_provider_goes_on_counting_in_its_dictionary() -> None:
    usage: dict[str, Any] = {"tokens": 1, "tier": "\ud800"}
    result = Result(usage=usage)
    usage["tokens"] = object()
    assert result.usage == {"tokens": 1, "tier": "\ufffd"}


def test_what_is_wrong_with_a_field_is_told_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"^ToolUse\.input must be an object, not list$"):
        ToolUse("t", "name", ["no object"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^ToolUse\.input can't be written as JSON$"):
        ToolUse("t", "name", {"a": object()})
    with pytest.raises(ValueError, match=r"^Result\.usage can't be written as JSON$"):
        Result(usage={"a": object()})
    with pytest.raises(TypeError, match=r"^ToolUse\.name must be text, not int$"):
        ToolUse("t", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Result\.session_id must have 1 to 512 characters and no NUL$"):
        Result(session_id="")
    with pytest.raises(ValueError, match=r"^Result\.session_id has a lone surrogate$"):
        Result(session_id="\ud800")
    with pytest.raises(ValueError, match=r"^Result\.cost_usd must be a finite number of dollars"):
        Result(cost_usd=float("nan"))


def test_the_longest_name_is_accepted() -> None:
    assert Result(session_id="x" * 512).session_id == "x" * 512


def test_errors_are_texts_however_they_are_given() -> None:
    assert Result(errors="one").errors == ("one",)
    assert Result(errors=["one", 2]).errors == ("one", "2")
    assert Result(errors={"not": "a list"}).errors == ()

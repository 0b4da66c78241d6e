"""The wrong stores and providers: each is caught, and by a script that a person can follow."""

import pytest

from fsm.testing import Report, check_provider, check_store
from fsm.testing.mutants import MUTANTS, Mutant

CAUGHT_BY = {
    "loses the last message": "rows",
    "lets the last writer win": "stale snapshots",
    "checks before it locks": "two threads",
    "forgets dead ids": "dead ids",
    "forgets tool results": "context",
    "stores the id from the error": "rows",
    "writes half a step": "atomicity",
    "swallows a failed write": "atomicity",
    "clears without logging": "rows",
    "reads newest first": "order",
    "orders by the clock": "order",
    "lets pages overlap": "pages",
    "tells failed turns": "context",
    "doubles rows on retry": "retries",
    "shares idempotency keys": "isolation",
    "confuses keys": "keys",
    "keeps text only": "contents",
    "loses the last commit": "reopening",
    "crashes on conflict": "stale snapshots",
    "trusts the version": "stale snapshots",
    "reports twice": "one result",
    "talks after its result": "result last",
    "never reports": "one result",
    "yields text": "events",
    "raises on dead sessions": "unknown ids",
    "reports death as failure": "unknown ids",
    "blames another session": "unknown ids",
    "echoes the dead id": "unknown ids",
    "names the dead again": "new start",
    "names what it forgets": "resuming",
    "shares one session": "two at once",
    "runs on after close": "closing",
    "has a false twin": "twins",
}


def check(mutant: Mutant) -> Report:
    if mutant.kind == "store":
        return check_store(mutant.make, examples=0, raise_on_failure=False)
    return check_provider(mutant.make, raise_on_failure=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_wrong_store_or_provider_is_caught_by_a_script_of_eight_steps_at_most(mutant: Mutant) -> None:
    """And by the contract that is about what it breaks."""
    report = check(mutant)
    assert CAUGHT_BY[mutant.name] in [outcome.contract for outcome in report.failed]
    for outcome in report.failed:
        assert 1 <= len(outcome.script) <= 8, outcome
        assert outcome.why


def test_every_mutant_says_what_it_does_wrong_and_what_that_breaks() -> None:
    """In a line each, under names of their own."""
    assert [mutant.name for mutant in MUTANTS] == list(CAUGHT_BY)
    guarantees = {f"G{number}" for number in (*range(1, 17), 22, 23)}
    for mutant in MUTANTS:
        assert mutant.breaks in guarantees | {"contract"}
        assert mutant.description.endswith(".")
    assert len({mutant.description for mutant in MUTANTS}) == len(MUTANTS)

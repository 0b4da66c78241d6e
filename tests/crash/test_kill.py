"""``kill -9`` at random moments: nothing that was acknowledged is missing (G8), and nothing is broken (G1 to G9)."""

import json
import os
import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from fsm import TurnStatus
from persistence import SQLStore
from tests.crash import TORTURE
from tests.crash.audit import Stories, audit
from tests.crash.worker import Job
from tests.crash.zygote import ROOT, Process, Report, Zygote

KILLS = 5000 if TORTURE else 200
"""In all, on both kinds of database."""

BATCH = 50
"""After so many kills a database is audited for the last time, and the next ones go on in a new one."""

AUDITS = 2
"""How often a database is audited, with its workers dead, and goes on if it isn't the last time."""

WORKERS = 3
KEYS = ["a", "b", "c", "d"]
SEED = int(os.environ.get("CONVERSATION_FSM_SEED", random.randrange(2**32)))


class Slaughter:
    """Workers talk at once in the same few conversations, and one after the other is killed and replaced.

    Args:
        zygote: what forks them.
        url: their database.
        seed: of the moments.
        options: what else their job says.
    """

    def __init__(self, zygote: Zygote, url: str, seed: int, **options: Any) -> None:
        self.reports: list[Report] = []
        self.kills = 0
        self.stories: Stories = {}
        self._zygote = zygote
        self._job = Job(url=url, name="", **{"keys": KEYS, **options})
        self._chance = random.Random(seed)

    def go_on(self, kills: int) -> None:
        """Kill so many workers."""
        workers = [self._spawn() for _ in range(WORKERS)]
        for number in range(kills):
            victim = workers.pop(self._chance.randrange(len(workers)))
            self._wait(victim)
            self.reports += victim.kill()
            self.kills += 1
            if len(workers) < kills - 1 - number:
                workers.append(self._spawn())

    def audit(self) -> None:
        """Check everything, while nobody is at work."""
        with SQLStore(self._job.url) as store:
            self.stories = audit(store, self.reports, self.stories)

    @property
    def acknowledged(self) -> int:
        """How many replies the workers were told."""
        return sum(report["kind"] == "acked" for report in self.reports)

    @property
    def cut_off(self) -> int:
        """How many turns were."""
        with SQLStore(self._job.url) as store:
            turns = [turn for conversation in store.conversations() for turn in store.turns(conversation)]
        return sum(turn.status is TurnStatus.INTERRUPTED for turn in turns)

    def _spawn(self) -> Process:
        name = f"worker {self._chance.getrandbits(64):x}"
        return self._zygote.spawn(attrs.evolve(self._job, name=name, seed=self._chance.getrandbits(32)))

    def _wait(self, victim: Process) -> None:
        """Until some moment: any, or the one at which it has just reported something."""
        if self._chance.random() < 0.5:
            select.select([], [], [], self._chance.uniform(0, 0.06))
            return
        for _ in range(self._chance.randrange(1, 4)):
            self.reports += victim.read(10.0) or []


@pytest.mark.timeout(KILLS)
@pytest.mark.parametrize("batch", range(KILLS // BATCH // 2))
def test_g8_g9_whoever_is_killed_nothing_acknowledged_is_missing(zygote: Zygote, url: str, batch: int) -> None:
    """G1 to G9, after kills at random moments of workers that share their conversations."""
    seed = SEED + batch
    print(f"again with: CONVERSATION_FSM_SEED={seed}", file=sys.stderr)
    slaughter = Slaughter(zygote, url, seed)
    for _ in range(AUDITS):
        slaughter.go_on(BATCH // AUDITS)
        slaughter.audit()
    assert slaughter.kills == BATCH
    assert slaughter.acknowledged > BATCH / 2, "the workers were killed before they did anything"
    assert slaughter.cut_off > 0, "nobody was killed in the middle of a turn"
    print(f"{slaughter.kills} kills, {slaughter.acknowledged} replies, {slaughter.cut_off} turns cut off")


@pytest.mark.timeout(KILLS)
@pytest.mark.parametrize("batch", range(KILLS // BATCH // 4))
@pytest.mark.parametrize("role", ["crowd", "gather"])
def test_g8_g9_those_who_write_together_are_killed_and_nothing_acknowledged_is_missing(
    zygote: Zygote, sqlite_url: str, batch: int, role: str
) -> None:
    """G1 to G9, with group commit, in threads and in tasks: none is answered before what is shared is durable."""
    seed = SEED + batch
    print(f"again with: CONVERSATION_FSM_SEED={seed}", file=sys.stderr)
    slaughter = Slaughter(zygote, sqlite_url, seed, role=role, keys=[f"k{number}" for number in range(16)])
    slaughter.go_on(BATCH)
    slaughter.audit()
    together = [report["steps"] for report in slaughter.reports if report["kind"] == "together"]
    assert slaughter.acknowledged > BATCH / 2
    assert slaughter.cut_off > 0
    assert max(together) > 1
    print(f"{slaughter.kills} kills, {slaughter.acknowledged} replies, {len(together)} shared transactions")


@pytest.mark.timeout(120)
def test_a_control_that_acknowledges_before_it_commits_is_caught(zygote: Zygote, url: str) -> None:
    """G8 would not be proved by a test that can't fail."""
    slaughter = Slaughter(zygote, url, SEED, control=True)
    with pytest.raises(AssertionError, match="G8"):
        while slaughter.kills < 10 * BATCH:
            slaughter.go_on(BATCH // 5)
            slaughter.audit()


@pytest.mark.parametrize("control", [False, True], ids=["worker", "control"])
def test_g8_a_reply_is_reported_by_an_interpreter_of_its_own_after_the_commit(
    tmp_path: Path, sqlite_url: str, control: bool
) -> None:
    """G8, without the zygote: the next thing the worker does after its first acknowledgement is to die."""
    job: dict[str, Any] = {"url": sqlite_url, "name": "worker", "seed": 6}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.worker", json.dumps(job), *["--control"] * control],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        reports = []
        while not reports or reports[-1]["kind"] != "acked":
            reports.append(json.loads(process.stdout.readline()))
        process.kill()
    assert [report["kind"] for report in reports] == ["ready", "heard", "acked"]
    with SQLStore(sqlite_url) as store:
        if not control:
            audit(store, reports)

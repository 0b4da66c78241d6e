"""Owners: which of them are certainly gone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fsm._runtime import owner
from fsm._runtime.owner import is_gone, name_owner

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing is concluded without /proc")


def tell_of_processes(monkeypatch: pytest.MonkeyPatch, stat: str | None) -> None:
    """Let ``/proc/PID/stat`` hold this text for every process, or be hidden if it is None."""

    class Told(type(Path())):  # type: ignore[misc]
        def read_text(self, *args: Any, **options: Any) -> str:
            if self.name != "stat":
                return super().read_text(*args, **options)
            if stat is None:
                raise FileNotFoundError
            return stat

    monkeypatch.setattr(owner, "Path", Told)


def test_this_process_is_not_gone_and_no_two_names_are_equal() -> None:
    assert not is_gone(name_owner())
    assert name_owner() != name_owner()


@linux_only
def test_a_process_that_ended_is_gone() -> None:
    named = subprocess.run(
        [sys.executable, "-c", "from fsm._runtime.owner import name_owner; print(name_owner())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert is_gone(named)


@linux_only
def test_a_process_that_was_killed_and_not_reaped_is_gone() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from fsm._runtime.owner import name_owner; print(name_owner(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        named = process.stdout.readline().strip()
        assert not is_gone(named)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(named)


@linux_only
def test_a_process_may_have_any_name() -> None:
    script = (
        "from fsm._runtime.owner import name_owner; open('/proc/self/comm', 'wb').write(bytes([255]) + b') Z 1 2'); "
        "print(name_owner(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        named = process.stdout.readline().strip()
        assert not is_gone(named)
        process.communicate("\n")
        assert is_gone(named)


def test_an_owner_is_named_by_what_linux_tells_of_when_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_of_processes(monkeypatch, f"7 (a name) R {' '.join(map(str, range(1, 50)))}")
    assert name_owner().split("/")[2] == "19"


@linux_only
def test_a_number_that_was_given_to_another_process_is_gone() -> None:
    world, pid, started, chance = name_owner().split("/")
    assert is_gone(f"{world}/{pid}/{int(started) + 1}/{chance}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "o",
        "elsewhere/1/2/3",
        "?/1/?/3",
        f"{name_owner().split('/')[0]}/x/1/2",
        f"{name_owner().split('/')[0]}/1/?/2",
    ],
)
def test_nothing_is_concluded_about_anybody_else(name: str) -> None:
    """Another machine, another namespace, another scheme: the lease decides."""
    assert not is_gone(name)


def test_a_process_that_proc_hides_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other users may be hidden; this one answers to its number."""
    named = name_owner()
    tell_of_processes(monkeypatch, None)
    assert not is_gone(named)

    def forbidden(pid: int, signal: int) -> None:
        assert (pid, signal) == (os.getpid(), 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not is_gone(named)


def test_without_proc_nothing_is_concluded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(type(Path())):  # type: ignore[misc]
        def read_text(self, *_: Any, **__: Any) -> str:
            raise FileNotFoundError

        def readlink(self) -> Any:
            raise FileNotFoundError

    monkeypatch.setattr(owner, "Path", Nowhere)
    assert name_owner().startswith("?/")
    assert not is_gone(name_owner())

"""The names of the owners of turns, and whether the process of an owner is gone.

A turn has a lease, so that a worker that died blocks its conversation no longer than the lease. On Linux, a worker on
the same machine does not wait that long. An owner's name holds the boot, the process and its start time. So a process
that is gone is recognised, even if another process has its number now. On other systems, and for other machines, the
lease decides.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["is_gone", "name_owner"]

UNKNOWN = "?"

DEAD = frozenset({"Z", "X"})
"""The states of a process that has ended."""


def name_owner() -> str:
    """Return a new name for an owner in this process.

    >>> is_gone(name_owner())
    False
    """
    pid = os.getpid()
    return f"{_world()}/{pid}/{_started(pid) or UNKNOWN}/{secrets.token_hex(4)}"


def is_gone(owner: str) -> bool:
    """Return whether the process of this owner is certainly gone."""
    world, _, rest = owner.partition("/")
    pid, _, rest = rest.partition("/")
    started, _, _ = rest.partition("/")
    if world == UNKNOWN or world != _world() or started == UNKNOWN or not pid.isdecimal():
        return False
    now = _started(int(pid))
    return _is_no_process(int(pid)) if now is None else now != started


def _is_no_process(pid: int) -> bool:
    """Return whether no living process has this number; ``/proc`` alone may hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _state(pid) in DEAD


def _world() -> str:
    """Return the boot and the process namespace: they name the set of processes that this one can see."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return UNKNOWN
    return f"{boot[:8]}-{''.join(filter(str.isdecimal, namespace))}"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the boot; None if it can't be seen or is a zombie."""
    fields = _stat(pid)
    return None if not fields or fields[0] in DEAD else fields[19]


def _state(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[0] if fields else None


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on; empty if the process can't be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []

"""Calls a function of a test in another process, where it may fork, hang or be killed."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PROGRAM = """
import faulthandler, importlib, json, sys
module, name, arguments, timeout = json.loads(sys.argv[1])
faulthandler.dump_traceback_later(timeout, exit=True)
returned = getattr(importlib.import_module(module), name)(*arguments)
print("returned", json.dumps(returned), flush=True)
"""


class Hung(AssertionError):
    """The process did not end in time; the message shows where each thread stood."""


def outside(function: Callable[..., Any], *arguments: Any, timeout: float = 60.0) -> Any:
    """Call a function of a module in a new process; return its result, as JSON.

    Args:
        function: a function at the top of a module.
        arguments: what JSON can hold.
        timeout: after how many seconds the process counts as hung. It is not a limit of speed: be generous.

    Raises:
        Hung: the function, or the exit of its process, took longer.
        AssertionError: the process failed; the message is what it printed.
    """
    order = json.dumps([function.__module__, function.__name__, arguments, timeout])
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, order], check=False, capture_output=True, text=True, timeout=timeout + 10
        )
    except subprocess.TimeoutExpired as error:
        raise Hung(f"{function.__name__}{arguments} has not ended after {timeout} s") from error
    if "Timeout (" in done.stderr:
        raise Hung(f"{function.__name__}{arguments} hung:\n{done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("returned ")]
    assert done.returncode == 0, done.stderr
    assert lines, f"exit status {done.returncode} without a return:\n{done.stderr}"
    return json.loads(lines[-1].removeprefix("returned "))

"""Workers by the hundred: a process that has imported everything and forks them, so that one costs milliseconds.

:class:`Zygote` is what a test holds. The zygote's process has one thread and no connection, so forking it is safe. It
ends, with all of its workers, as soon as the test closes its end of the channel.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import attrs

from tests.crash.worker import Job, Worker

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""For how many seconds to wait for something that should happen at once."""

Report = dict[str, Any]


class Process:
    """A worker process, as its test sees it."""

    def __init__(self, zygote: "Zygote", job: Job, pid: int, reports: int, orders: int) -> None:
        self.job = job
        self.pid = pid
        self.reports = reports
        self._zygote = zygote
        self.orders = orders
        self._rest = b""

    def signal(self, number: int) -> None:
        """Send it a signal; its number is its own until :meth:`reap`."""
        os.kill(self.pid, number)

    def order(self) -> None:
        """Let it go on."""
        os.write(self.orders, b"!")

    def read(self, timeout: float) -> list[Report] | None:
        """Return its reports since the last call; None if it has ended. Waits for that, but not for longer than
        told."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.reports, selectors.EVENT_READ)
            return self.take() if selector.select(timeout) else []

    def take(self) -> list[Report] | None:
        """Wait for its next reports and return them; None at the end."""
        if not (data := os.read(self.reports, 65536)):
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        reports = [json.loads(line) for line in lines]
        for report in reports:
            assert report["kind"] != "error", f"{self.job} failed:\n{report['text']}"
        return reports

    def until(self, kind: str, timeout: float = PATIENCE) -> Report:
        """The report of this kind that comes next."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            reports = self.read(max(0.0, deadline - time.monotonic()))
            assert reports is not None, f"{self.job} has ended without reporting {kind!r}"
            for report in reports:
                if report["kind"] == kind:
                    return report
        raise TimeoutError(f"{self.job} has not reported {kind!r} in {timeout} s")

    def kill(self) -> list[Report]:
        """``kill -9``; returns what it had reported."""
        self.signal(signal.SIGKILL)
        reports: list[Report] = []
        while (more := self.take()) is not None:
            reports += more
        self.reap()
        return reports

    def reap(self) -> int:
        """Forget the process, which has ended or is about to; returns its exit code, or minus its signal."""
        os.close(self.reports)
        os.close(self.orders)
        return self._zygote.reap(self)


class Zygote:
    """Forks workers; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(PATIENCE)
        self._alive: set[Process] = set()
        # A worker that is killed writes no coverage, and being measured slows it down.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environment["PYTHONPATH"] = str(ROOT)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    def spawn(self, job: Job) -> Process:
        """A new worker."""
        reports, to_report = os.pipe()
        to_obey, orders = os.pipe()
        try:
            message = json.dumps({"spawn": attrs.asdict(job)}).encode()
            socket.send_fds(self._channel, [message], [to_report, to_obey])
            process = Process(self, job, self._answer(), reports, orders)
        finally:
            os.close(to_report)
            os.close(to_obey)
        self._alive.add(process)
        return process

    def reap(self, process: Process) -> int:
        """Wait for the end of a process; returns its exit code, or minus its signal."""
        self._alive.discard(process)
        self._channel.sendall(json.dumps({"mark_dead": process.pid}).encode())
        return self._answer()

    def _answer(self) -> int:
        answer = self._channel.recv(64)
        assert answer, "the zygote has ended"
        return int(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        for process in self._alive:
            os.close(process.reports)
            os.close(process.orders)
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()


def everything(processes: Iterable[Process], timeout: float = PATIENCE) -> Iterator[tuple[Process, Report]]:
    """Yield the reports of the processes as they come, until all have ended with success."""
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.reports, selectors.EVENT_READ, process)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"still at work after {timeout} s: {len(selector.get_map())} workers")
            for key, _ in ready:
                reports = key.data.take()
                yield from ((key.data, report) for report in reports or ())
                if reports is None:
                    selector.unregister(key.fd)
                    assert key.data.reap() == 0


def serve(channel: socket.socket) -> None:
    """Fork and reap as told, until nobody tells any more."""
    children: set[int] = set()
    try:
        while True:
            message, descriptors, _, _ = socket.recv_fds(channel, 65536, 2)
            if not message:
                return
            told = json.loads(message)
            if "spawn" in told:
                pid = os.fork()
                if pid == 0:
                    channel.close()
                    os._exit(Worker(Job(**told["spawn"]), *descriptors).run())
                children.add(pid)
                for descriptor in descriptors:
                    os.close(descriptor)
                answer = pid
            else:
                _, status = os.waitpid(told["mark_dead"], 0)
                children.discard(told["mark_dead"])
                answer = os.waitstatus_to_exitcode(status)
            channel.sendall(str(answer).encode())
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Import what a worker imports late, and serve."""
    import playhouse.migrations  # noqa: F401

    with suppress(ImportError):
        import persistence.dialects.postgresql  # noqa: F401
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)


if __name__ == "__main__":
    main()

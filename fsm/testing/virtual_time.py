"""Virtual time: coroutines that wait for as long as they like in no time, in an order that a seed decides.

A :class:`Loop` runs one coroutine at a time, until it waits, and then the one whose time comes next. It promises that
the same coroutines and the same chance make the same run. A task can be cancelled, as anyio does it: at its next wait
that is not shielded, and at every one after that. And it can be killed, as ``kill -9`` does it: nothing that it awaits
afterwards happens.
"""

from __future__ import annotations

import heapq
import itertools
import random
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import Factory, define

__all__ = ["Cancelled", "Killed", "Loop", "Task"]


class Cancelled(BaseException):  # it is no error
    """The task's caller does not want its outcome any more."""


class Killed(BaseException):  # it is no error
    """The process that ran the task is gone."""


@define(eq=False)
class Task:
    """A coroutine under way.

    Attributes:
        coroutine: what is run.
        group: what it belongs to, and dies with.
        ended: called with the task when it is over.
        outcome: what it returned.
        error: what it raised.
    """

    coroutine: Coroutine[Any, Any, Any]
    group: object
    ended: Callable[[Task], object]
    outcome: Any = None
    error: BaseException | None = None
    is_over: bool = False
    _is_killed: bool = False
    _is_cancelled: bool = False
    _shields: int = 0
    _due: int = 0

    def check(self) -> None:
        """Raise what has come over the task."""
        if self._is_killed:
            raise Killed
        if self._is_cancelled and not self._shields:
            raise Cancelled


@define(eq=False)
class Loop:
    """Virtual time.

    Attributes:
        chance: decides who is first among those whose time has come.
        now: seconds since the beginning.

    >>> loop, heard = Loop(random.Random(1)), []
    >>> async def wait(seconds):
    ...     await loop.pause(seconds)
    ...     heard.append(loop.now)
    >>> for seconds in (3600, 60):
    ...     _ = loop.spawn(wait(seconds), group=None)
    >>> loop.run()
    >>> heard
    [60.0, 3600.0]
    """

    chance: random.Random
    now: float = 0.0
    _queue: list[tuple[float, float, int, Callable[[], None]]] = Factory(list)
    _numbers: Iterator[int] = Factory(lambda: itertools.count(1))
    _void: set[int] = Factory(set)
    _tasks: dict[Task, None] = Factory(dict)
    _current: Task | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, Any], group: object, ended: Callable[[Task], object] = bool) -> Task:
        """Begin a coroutine, now."""
        task = Task(coroutine, group, ended)
        self._tasks[task] = None
        self._resume_in(0.0, task)
        return task

    def call_in(self, seconds: float, function: Callable[[], None]) -> int:
        """Call a function when some time has passed; the number of the appointment."""
        number = next(self._numbers)
        heapq.heappush(self._queue, (self.now + seconds, self.chance.random(), number, function))
        return number

    def run(self) -> None:
        """Let everything happen that is to happen."""
        while self._queue:
            at, _, number, function = heapq.heappop(self._queue)
            if number in self._void:
                self._void.remove(number)
            else:
                self.now = at
                function()

    async def pause(self, seconds: float) -> None:
        """Wait, as part of the task that is running.

        Raises:
            Cancelled: the task was cancelled, and is not shielded.
            Killed: the task was killed.
        """
        task = self._running()
        task.check()
        await _wait(float(seconds))
        task.check()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Let nothing cancel the task that is running inside the block."""
        task = self._running()
        task._shields += 1
        try:
            yield
        finally:
            task._shields -= 1

    def cancel(self, task: Task) -> None:
        """Cancel a task: it hears of it at once, or when its shield ends."""
        task._is_cancelled = True
        if not task.is_over and not task._shields:
            self._resume_in(0.0, task)

    def kill(self, group: object) -> None:
        """Kill all tasks of a group; those that end by it are not told to anybody but ``ended``."""
        for task in [task for task in self._tasks if task.group is group]:
            task._is_killed = True
            self._void.add(task._due)
            task._due = 0
            self._resume(task)

    def abandon(self) -> None:
        """Kill everything, and tell nobody."""
        for task in list(self._tasks):
            task.ended = bool
            self.kill(task.group)
        self._queue.clear()

    def _running(self) -> Task:
        if self._current is None:
            raise RuntimeError("only a task of this loop can wait or be shielded")
        return self._current

    def _resume_in(self, seconds: float, task: Task) -> None:
        if task._due:
            self._void.add(task._due)

        def resume() -> None:
            task._due = 0
            self._resume(task)

        task._due = self.call_in(seconds, resume)

    def _resume(self, task: Task) -> None:
        before, self._current = self._current, task
        try:
            seconds = task.coroutine.send(None)
        except StopIteration as stop:
            task.outcome = stop.value
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the task's outcome
            task.error = error
        else:
            self._resume_in(seconds, task)
            return
        finally:
            self._current = before
        task.is_over = True
        del self._tasks[task]
        task.ended(task)


@types.coroutine
def _wait(seconds: float) -> Generator[float, None, None]:
    yield seconds

"""The contracts of providers, for :func:`fsm.testing.check_provider`.

Each is tried in each *way* that the provider can be asked, ``stream`` and ``astream``, with a new provider. An
``astream`` runs on one event loop for the length of a contract, as it would in an application.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fsm._core.table import Trigger
from fsm.events import Result, TextDelta, ToolResult, ToolUse
from fsm.testing.report import Broken, Contract, NotApplicable
from fsm.testing.talking import Channel, ProviderSubject, Talk, channel_of, names_of

__all__ = ["CONTRACTS"]

PATIENCE = 3.0
"""How long a provider may take to stop what it was doing when it is closed, in seconds."""


def in_each_way(check: Callable[[Channel], None]) -> Callable[[ProviderSubject], None]:
    """Try a check in each way that the provider can be asked, each time with a new provider."""

    def try_it(subject: ProviderSubject) -> None:
        for way in subject.ways():
            with channel_of(subject, way) as channel:
                check(channel)

    return try_it


def name(subject: ProviderSubject) -> None:
    """Check that the name is text, and the same for each instance."""
    names = []
    for _ in range(2):
        with subject.provider() as provider:
            names.append(getattr(provider, "name", None))
    if not isinstance(names[0], str) or not names[0]:
        raise Broken(f"name must be text and is {names[0]!r}")
    if names[0] != names[1]:
        raise Broken(f"two providers made alike must have one name, and have {names[0]!r} and {names[1]!r}")


@in_each_way
def only_events(channel: Channel) -> None:
    """Check that only events are yielded, and nothing is raised."""
    talk = channel.talk()
    heard = talk.hear()
    for event in heard.events:
        if not isinstance(event, TextDelta | ToolUse | ToolResult | Result):
            raise talk.broken(
                f"{channel.way} must yield TextDelta, ToolUse, ToolResult or Result, and yielded {event!r}"
            )
    if heard.error is not None:
        raise talk.broken(f"{channel.way} raised {type(heard.error).__name__}: {heard.error}")


@in_each_way
def one_result(channel: Channel) -> None:
    """Check that there is exactly one result."""
    talk = channel.talk()
    count = len(talk.hear().results)
    if count != 1:
        raise talk.broken(f"there must be one result, and there were {count}")


@in_each_way
def result_last(channel: Channel) -> None:
    """Check that nothing follows the result."""
    talk = channel.talk()
    events = talk.hear().events
    first = next((position for position, event in enumerate(events) if isinstance(event, Result)), len(events))
    if events[first + 1 :]:
        raise talk.broken(f"nothing may follow the result, and {names_of(events[first + 1 :])} did")


@in_each_way
def resuming(channel: Channel) -> None:
    """Check that sessions can be resumed, again and again."""
    talk = channel.talk()
    named = talk.succeed().session_id
    if named is None:
        raise NotApplicable("it names no session, so there is none to resume")
    for _ in range(2):
        result = talk.ask(resume=talk.session_id)
        if result.trigger is Trigger.EXPIRED:
            raise talk.broken(f"a session that it names must be resumable, and {talk.session_id} was reported dead")
        if result.trigger is not Trigger.SUCCEEDED:
            raise talk.broken(f"the message must be answered, and the result is {result.reason}")


@in_each_way
def unknown_ids(channel: Channel) -> None:
    """Check that an unknown id is reported as dead, each time."""
    _needs_sessions(channel)
    talk, unknown = channel.talk(), channel.subject.unknown_id
    for _ in range(2):
        result = talk.ask(resume=unknown)
        if result.trigger is not Trigger.EXPIRED:
            raise talk.broken(f"an unknown session must be reported as error_during_execution, not as {result.reason}")
        if result.session_id not in {None, unknown}:
            raise talk.broken(f"the report must name {unknown} or none, and names {result.session_id}")


def _needs_sessions(channel: Channel) -> None:
    if getattr(channel.provider, "wants_transcript", False):
        raise NotApplicable("its session is the transcript that it is given, so no id is unknown to it")


@in_each_way
def new_start(channel: Channel) -> None:
    """Check that a new session answers after a dead one, with a new name."""
    _needs_sessions(channel)
    talk, unknown = channel.talk(), channel.subject.unknown_id
    talk.ask(resume=unknown)
    if talk.succeed().session_id == unknown:
        raise talk.broken(f"a new session must have a name of its own, and has that of the dead one, {unknown}")


@in_each_way
def history(channel: Channel) -> None:
    """Check that a new session that is told the history answers, and is not the old one."""
    talk = channel.talk()
    first = talk.succeed().session_id
    second = talk.succeed().session_id
    if first is not None and first == second:
        raise talk.broken(f"a new session must have a name of its own, and has that of the one before, {first}")


@in_each_way
def closing(channel: Channel) -> None:
    """Check that closing the events in the middle stops the answer."""
    talk = channel.talk()
    session_id = talk.succeed().session_id
    before = set(threading.enumerate())
    heard = talk.hear(resume=session_id, take=1)
    if heard.error is not None:
        raise talk.broken(f"closing {channel.way} raised {type(heard.error).__name__}: {heard.error}")
    deadline = time.monotonic() + PATIENCE
    while left := [thread.name for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            raise talk.broken(f"closing must stop what it was doing, and the thread {left[0]!r} goes on")
        time.sleep(0.005)
    talk.succeed()


@in_each_way
def two_at_once(channel: Channel) -> None:
    """Check that two conversations at once, in two threads or tasks, are not mixed."""
    talks = [channel.talk(key) for key in "ab"]
    barrier = threading.Barrier(len(talks))
    broken: list[Exception] = []

    def run(talk: Talk) -> None:
        try:
            barrier.wait(timeout=PATIENCE)
            talk.succeed()
            talk.succeed(resume=talk.session_id)
        except Exception as error:  # noqa: BLE001  # told by the thread that waits
            broken.append(error)

    threads = [threading.Thread(target=run, args=(talk,)) for talk in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    first, second = talks
    if first.session_id is not None and first.session_id == second.session_id:
        story = [*first.story, *second.story]
        raise Broken(f"two conversations must have two sessions, and both have {first.session_id}", story)


def twins(subject: ProviderSubject) -> None:
    """Check that both ways give the same events."""
    ways = subject.ways()
    if len(ways) < 2:
        raise NotApplicable(f"it has only {ways[0]}")
    said, story = [], []
    for way in ways:
        with channel_of(subject, way) as channel:
            talk = channel.talk()
            results = [talk.ask(), talk.ask(resume=talk.session_id)]
            if not getattr(channel.provider, "wants_transcript", False):
                results.append(talk.ask(resume=subject.unknown_id))
        said.append([(result.subtype, result.is_error, result.session_id is None) for result in results])
        story += talk.story
    if said[0] != said[1]:
        raise Broken(f"stream and astream must report the same, and report {said[0]} and {said[1]}", story)


CONTRACTS: tuple[Contract[ProviderSubject], ...] = (
    Contract("name", "it has a name, always the same (G15)", name),
    Contract("events", "it yields events, and raises nothing", only_events),
    Contract("one result", "it reports exactly one result", one_result),
    Contract("result last", "nothing follows the result", result_last),
    Contract("resuming", "a session that it names can be resumed", resuming),
    Contract("unknown ids", "a session that it doesn't know is reported dead, not raised (G2)", unknown_ids),
    Contract("new start", "after a dead session a new one answers, under a name of its own (G3)", new_start),
    Contract("history", "a new session takes the history, under a name of its own (G3)", history),
    Contract("closing", "closing it in the middle stops it, and the next message is answered", closing),
    Contract("two at once", "two conversations at once get two answers and two sessions", two_at_once),
    Contract("twins", "stream and astream report the same (G12)", twins),
)
"""All of them."""

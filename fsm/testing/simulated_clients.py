"""Who talks in a simulated world: callers that send, leave, cancel, reset and repeat, and the workers they call.

A caller notes each reply that it got, and :meth:`Client.check` looks whether all of them are there in the end (G4, G8).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import frozen

from fsm.content import Block, text_block
from fsm.errors import FSMError, StoreError
from fsm.records import Conversation, TurnStatus
from fsm.reply import Reply
from fsm.store import Store
from fsm.testing.simulated import Broken, Database, Worker, World
from fsm.testing.simulated_provider import Provider
from fsm.testing.virtual_time import Cancelled, Killed, Task

__all__ = ["Client", "Crew"]

ACTIONS = {"send": 90, "reset": 4, "force": 3, "recover": 3}
"""The acts of a caller, with their weights."""


TOLD = {TurnStatus.SUPERSEDED: {TurnStatus.SUPERSEDED, TurnStatus.INTERRUPTED}}
"""How a turn may be stored whose caller was told this. The superseded caller does not know the cause: a reset, or a
worker that ended its turn as interrupted."""


@frozen
class Message:
    """A message: its text, and its idempotency key or None."""

    text: str
    name: str | None


class Crew:
    """The workers that are alive.

    Args:
        world: the world.
        database: where the conversations are.
        providers: the AIs; a worker that is started again uses the second at times.
        size: how many workers there are.
    """

    def __init__(self, world: World, database: Database, providers: Sequence[Provider], size: int) -> None:
        self.database = database
        self.providers = providers
        self._world = world
        self._lives = 0
        self._alive = [self._born() for _ in range(size)]

    def anybody(self) -> Worker | None:
        """Return a worker that is alive, if there is one."""
        return self._world.chance.choice(self._alive) if self._alive else None

    def patient(self) -> Worker:
        """Return a worker that waits until its conversation is free."""
        return self._born(waits=True)

    def remembered(self, conversation: Conversation) -> tuple[str, ...]:
        """Return the messages that the conversation's session knows."""
        provider = next(provider for provider in self.providers if provider.name == conversation.provider)
        return provider.remembers(conversation.session_id)

    def suffer(self) -> None:
        """Let faults happen between two messages."""
        world, faults = self._world, self._world.faults
        if world.happens(faults.dies) and self._alive:
            self._die(world.chance.choice(self._alive))
        if world.happens(faults.forgets):
            world.note("", "the database crashes")
            self.database.crash()
            if world.happens(0.5):  # it stood in the processes themselves
                for worker in list(self._alive):
                    self._die(worker)
        if world.happens(faults.loses / 10):
            world.chance.choice(self.providers).lose_everything()

    def _die(self, worker: Worker) -> None:
        world = self._world
        world.tally.crashes += 1
        world.note("", f"{worker.name} is killed")
        self._alive.remove(worker)
        world.loop.kill(worker)
        world.loop.call_in(world.chance.uniform(1.0, 30.0), lambda: self._alive.append(self._born()))

    def _born(self, *, waits: bool = False) -> Worker:
        self._lives += 1
        provider = self.providers[0 if waits else self._world.happens(0.1)]
        return Worker(f"worker-{self._lives}", self._world, self.database, provider, waits=waits)


class Client:
    """Somebody who talks in one conversation, one message after the other.

    Args:
        key: the conversation.
        name: tells it from the others that talk there.
        world: the world.
        crew: whom it calls.

    Attributes:
        acknowledged: the replies it got.
    """

    def __init__(self, key: str, name: str, world: World, crew: Crew) -> None:
        self.key = key
        self.acknowledged: list[Reply] = []
        self._name = name
        self._world = world
        self._crew = crew
        self._goes_on: Callable[[], bool] = bool
        self._sent = 0
        self._unanswered: Message | None = None
        self._texts: dict[int, str] = {}

    def go_on(self, while_: Callable[[], bool]) -> None:
        """Talk, as long as that is so."""
        self._goes_on = while_
        self._pause()

    def say_the_last_word(self) -> None:
        """Send one more message, and wait for its answer as long as it takes."""
        self._goes_on = bool
        self._unanswered = None
        worker = self._crew.patient()
        self._world.loop.spawn(self._send(worker, self._message(), None), worker, self._ended)

    def check(self, store: Store) -> None:
        """See that every reply that it got is stored as it got it (G4, G8)."""
        conversation = store.load(self.key)
        for reply in self.acknowledged:
            turns = [] if conversation is None else store.turns(conversation, limit=1, before=reply.turn + 1)
            if [turn.number for turn in turns] != [reply.turn] or turns[0].status not in TOLD.get(
                reply.status, {reply.status}
            ):
                raise Broken(
                    self.key, f"G8: turn {reply.turn} was acknowledged as {reply.status}, and is not stored so"
                )
            assert conversation is not None  # noqa: S101  # it has a turn
            said = store.turn_messages(conversation, turns[0])
            answer = "".join(message.text for message in said if message.role == "assistant")
            if (said[0].text, answer) != (self._texts[reply.turn], reply.text):
                raise Broken(self.key, f"G4: turn {reply.turn} does not say what it said when it was acknowledged")

    def _pause(self) -> None:
        if self._goes_on():
            self._world.loop.call_in(self._world.chance.expovariate(1 / 20), self._act)

    def _act(self) -> None:
        worker = self._crew.anybody()
        if worker is None:
            self._pause()
            return
        chance, faults = self._world.chance, self._world.faults
        (action,) = chance.choices(list(ACTIONS), list(ACTIONS.values()))
        act: Coroutine[Any, Any, object]
        match action:
            case "reset" | "force":
                act = worker.reset(self.key, reason="asked for", force=action == "force")
            case "recover":
                act = worker.recover()
            case _:
                leaves = chance.randint(0, 3) if self._world.happens(faults.cancels) else None
                act = self._send(worker, self._message(), leaves)
        self._world.note(self.key, f"{self._name} asks {worker.name} to {action}")
        task = self._world.loop.spawn(act, worker, self._ended)
        if self._world.happens(faults.cancels):
            self._world.loop.call_in(chance.expovariate(1 / 3), lambda: self._world.loop.cancel(task))

    async def _send(self, worker: Worker, message: Message, leaves_after: int | None) -> None:
        """Send a message; read all of its answer, or so many events of it."""
        self._unanswered = message
        content: list[Block] = [text_block(message.text)]
        if message.name is None and self._world.happens(0.2):
            content.append({"type": "tool_result", "tool_use_id": f"call {message.text}", "content": "done"})
        turn = await worker.begin(self.key, content, idempotency_key=message.name)
        try:
            heard = 0
            while heard != leaves_after and await turn.pull() is not None:
                heard += 1
        finally:
            await turn.close()
        self.acknowledged.append(turn.reply)
        self._texts[turn.reply.turn] = message.text
        self._unanswered = None
        self._world.note(self.key, f"{self._name} hears: turn {turn.reply.turn} {turn.reply.status}")

    def _message(self) -> Message:
        """Return a new message; or, if its last was not answered and has a name, that one again."""
        again = self._unanswered
        if again is not None and again.name is not None and self._world.happens(0.7):
            return again
        self._sent += 1
        name = f"{self._name} {self._sent}"
        return Message(f"{self.key} {name}", name if self._world.happens(0.5) else None)

    def _ended(self, task: Task) -> None:
        error = task.error
        if error is not None:
            self._world.note(self.key, f"{self._name} gets {type(error).__name__}")
        if isinstance(error, Broken):
            raise error
        if isinstance(error, StoreError) and not isinstance(error.__cause__, FSMError | None):
            raise Broken(self.key, f"the store raised {error.__cause__!r}, which no store should") from error
        if error is not None and not isinstance(error, FSMError | Cancelled | Killed):
            raise Broken(self.key, f"a caller got {error!r}, which is no error of this library") from error
        if not isinstance(error, Killed):
            self._crew.suffer()
        self._pause()

"""The asynchronous manager: many conversations on one event loop."""

# [send]
import anyio

from fsm import AsyncSessionManager, TextDelta
from fsm.providers import DemoProvider
from persistence import SQLStore

manager = AsyncSessionManager(SQLStore("sqlite:///asyncio.db"), DemoProvider(), max_turns=50)


states = {}


async def ask(key: str) -> None:
    reply = await manager.send(key, "Where is my parcel?")
    states[key] = reply.state.value


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(ask, f"ticket-{number}")
    print(sorted(states.items()))
    # [send end]

    # [stream]
    async with manager.stream("ticket-0", "And now?") as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                print(event.text, end="")
    print(f"\n{turn.reply.status}")
    # [stream end]

    # [cancel]
    with anyio.move_on_after(3600) as scope:
        async with manager.stream("ticket-0", "Tell me more.") as turn:
            async for _ in turn:
                scope.cancel()
    print((await manager.conversations.turns("ticket-0"))[-1].status)
    # [cancel end]


anyio.run(main)

"""What a provider answers to the requests of one turn: read, closed, or left.

Whatever a provider raises becomes an error that names the conversation, and what it raises while it is closed is only
logged: the outcome of the turn matters more than a failed clean-up.
"""

from __future__ import annotations

from fsm._runtime.adapters import Events, Ports
from fsm._runtime.log import LOGGER
from fsm.errors import FSMError, ProviderError
from fsm.fork import leave_to_parent
from fsm.provider import Request

__all__ = ["END", "ProviderStream"]


class END:
    """The provider has no more events."""


class ProviderStream:
    """The answers to the requests of one turn, one at a time. It is read and closed by the reader of the turn.

    Args:
        ports: asks the provider.
        key: the conversation.
        turn: the number of the turn.
    """

    def __init__(self, ports: Ports, key: str, turn: int) -> None:
        self._ports = ports
        self._key = key
        self._turn = turn
        self._events: Events | None = None
        self._left: Events | None = None

    async def next(self, request: Request) -> object:
        """The next thing that the provider yields for this request, or :class:`END`.

        Raises:
            ProviderError: the provider raised.
        """
        try:
            if self._events is None:
                self._events = self._ports.events(request)
            return await self._events.__anext__()
        except StopAsyncIteration:
            return END
        except FSMError as error:
            error.key = error.key or self._key
            raise
        except Exception as error:
            raise ProviderError(
                f"the provider raised {type(error).__name__} in turn {self._turn}; the turn is interrupted and the "
                "conversation takes the next message",
                self._key,
            ) from error

    async def close(self) -> None:
        """Make the answer end, and wait for that."""
        events, self._events = self._events, None
        if events is None:
            return
        try:
            await events.aclose()
        except Exception as error:  # noqa: BLE001  # a provider's own code
            self._not_closed(error)

    def close_later(self) -> None:
        """The same in the background: the answer is stored, and what the provider does now delays nobody."""
        events, self._events = self._events, None
        if events is not None:
            events.close_later(self._not_closed)
            self._left = events

    async def settle(self) -> None:
        """Give what was left to the background a moment to end."""
        if self._left is not None:
            await self._left.settle()

    def leave_to_parent(self) -> None:
        """In a forked child: the answer is the parent's, and must not be closed here."""
        if self._events is not None:
            leave_to_parent(self._events)

    def _not_closed(self, error: Exception) -> None:
        fields = {"conversation": self._key, "turn": self._turn, "error": type(error).__name__}
        LOGGER.error("provider.close_failed", extra=fields, exc_info=error)

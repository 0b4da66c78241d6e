"""The answers of a provider to the requests of one turn: read, closed, or left to the background.

Every exception of a provider becomes an error that names the conversation. An exception while it is closed is only
logged: the outcome of the turn matters more than a failed clean-up.
"""

from __future__ import annotations

from types import TracebackType

from fsm._runtime.adapters import END, Adapter, ProviderEvents
from fsm._runtime.log import LOGGER
from fsm.errors import FSMError, ProviderError
from fsm.fork import leave_to_parent
from fsm.provider import Request

__all__ = ["ProviderStream"]


class ProviderStream:
    """The answers to the requests of one turn, one at a time. The reader of the turn reads and closes it.

    Args:
        adapter: how to ask the provider.
        key: the conversation.
        turn: the number of the turn.
    """

    def __init__(self, adapter: Adapter, key: str, turn: int) -> None:
        self._adapter = adapter
        self._key = key
        self._turn = turn
        self._events: ProviderEvents | None = None
        self._left: ProviderEvents | None = None

    def __enter__(self) -> None:
        """Begin a block that reads events; an exception of the provider in it becomes an error that names the turn."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, FSMError):
            raise error.completed(key=self._key) from error.__cause__
        if isinstance(error, Exception):
            raise ProviderError(
                f"the provider raised {type(error).__name__} in turn {self._turn}; the turn is interrupted and the "
                "conversation takes the next message",
                self._key,
            ) from error

    def events(self, request: Request) -> ProviderEvents:
        """Return the events of this request; the provider is asked if it was not asked yet."""
        if self._events is None:
            self._events = self._adapter.events(request)
        return self._events

    def checked(self, event: object) -> object:
        """Return an event, unless it is the end, which must not come before a result.

        Raises:
            ProviderError: the answer has ended.
        """
        if event is END:
            raise ProviderError("the provider ended without a result; a turn ends with exactly one", self._key)
        return event

    async def close(self) -> None:
        """End the answer, and wait for that."""
        events, self._events = self._events, None
        if events is None:
            return
        try:
            await events.close()
        except Exception as error:  # noqa: BLE001  # a provider's own code
            self._log_failure(error)

    def close_later(self) -> None:
        """Close it in the background, after the answer was stored."""
        events, self._events = self._events, None
        if events is not None:
            events.close_later(self._log_failure)
            self._left = events

    async def settle(self) -> None:
        """Wait a moment for the close in the background."""
        if self._left is not None:
            await self._left.settle()

    def leave_to_parent(self) -> None:
        """Keep the answer, which belongs to the parent, from being closed in a forked child."""
        if self._events is not None:
            leave_to_parent(self._events)

    def _log_failure(self, error: Exception) -> None:
        fields = {"conversation": self._key, "turn": self._turn, "error": type(error).__name__}
        LOGGER.error("provider.close_failed", extra=fields, exc_info=error)

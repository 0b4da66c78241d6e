"""Signs of life of a service behind the Anthropic SDK: attempts, headers, and every piece of an answer.

The SDK drops the pings of a stream before anybody sees them, so the bytes of the answer are watched. The SDK is
imported with this module; import it inside a function.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2

__all__ = ["watched"]


def watched(client: Any, alive: Callable[[], object]) -> Any:
    """Return the same client, over the same connections, that calls ``alive`` for each sign of life.

    Args:
        client: a client of the SDK, synchronous or not.
        alive: called when an attempt begins, when its headers came, and for each piece of the answer.

    >>> import anthropic
    >>> with anthropic.Anthropic(api_key="sk-ant-…") as client:
    ...     watched(client, print).api_key
    'sk-ant-…'
    """

    def watch(request: Any, call: Callable[[Any], Any]) -> Any:
        alive()
        answer = call(request)
        _watch_body(answer, _Body, alive)
        return answer

    async def watch_async(request: Any, call: Callable[[Any], Awaitable[Any]]) -> Any:
        alive()
        answer = await call(request)
        _watch_body(answer, _AsyncBody, alive)
        return answer

    return client.with_middleware(watch_async if _is_asynchronous(client) else watch)


def _is_asynchronous(client: Any) -> bool:
    from anthropic._base_client import AsyncAPIClient

    return isinstance(client, AsyncAPIClient)


def _watch_body(answer: Any, body: Any, alive: Callable[[], object]) -> None:
    alive()
    response = getattr(answer, "http_response", None)
    if isinstance(response, httpx2.Response) and not response.is_stream_consumed and not response.is_closed:
        response.stream = body(response.stream, alive)


class _Body(httpx2.SyncByteStream):
    def __init__(self, body: Any, alive: Callable[[], object]) -> None:
        self._body = body
        self._alive = alive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._body:
            self._alive()
            yield piece

    def close(self) -> None:
        self._body.close()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, body: Any, alive: Callable[[], object]) -> None:
        self._body = body
        self._alive = alive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._body)
        try:
            async for piece in pieces:
                self._alive()
                yield piece
        finally:
            # In the task that read it; the loop would do it later, in a task of its own.
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def aclose(self) -> None:
        await self._body.aclose()

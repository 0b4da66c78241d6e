"""Clients of the Anthropic SDK: checked when a provider is constructed, and one for each process and event loop.

The connections that a client keeps alive belong to the process that opened them, and those of an asynchronous client
to its event loop as well. :class:`Clients` hands out a client that the caller may use here and now. Any thread may ask
for a client. An asynchronous one is used only in the loop that asked for it, and a forked child never uses an inherited
one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

from attrs import frozen

from fsm.errors import InvalidInput, ProviderError
from fsm.fork import leave_to_parent, renew_in_child

__all__ = ["Clients", "check_credentials", "from_environment"]


class Clients:
    """The clients of one provider.

    Args:
        client: the caller's synchronous client, or a function that returns one. It is called once in each process.
        async_client: the caller's asynchronous client, or a function that returns one. It is called once for each
            event loop. Without either argument both clients are made from the environment (``ANTHROPIC_…``).

    Raises:
        InvalidInput: an argument is neither.
        ProviderError: no credentials were found.

    >>> import anthropic
    >>> with anthropic.Anthropic(api_key="sk-ant-…", timeout=60, max_retries=1) as client:
    ...     clients = Clients(client, None)
    ...     clients.sync("key") is client, clients.longest_silence()
    (True, 120.0)
    """

    def __init__(self, client: Any = None, async_client: Any = None) -> None:
        import anthropic

        _check_client(client, "client", asynchronous=False)
        _check_client(async_client, "async_client", asynchronous=True)
        is_from_environment = client is None and async_client is None
        self._lock = threading.Lock()
        self._make: Callable[[], Any] | None = client if _is_function(client) else None
        self._make_async: Callable[[], Any] | None = async_client if _is_function(async_client) else None
        if is_from_environment:
            client = from_environment(anthropic.Anthropic)
            self._make_async = _async_from_environment
        self._client = client if self._make is None else None
        self._given_async = async_client if not _is_function(async_client) else None
        self._origin: Any = None
        self._in_loops: weakref.WeakKeyDictionary[Any, _InLoop] = weakref.WeakKeyDictionary()
        self._was_used = self._was_used_async = False
        for given in (self._client, self._given_async):
            check_credentials(given)
        renew_in_child(self)

    def sync(self, key: str) -> Any:
        """Return the synchronous client of this process.

        Args:
            key: the conversation, for the error.

        Raises:
            ProviderError: there is none, or it can't be used in this process.
        """
        with self._lock:
            if self._client is None:
                self._client = self._made_here(key)
            self._was_used = True
            return self._client

    async def asynchronous(self, key: str) -> Any:
        """Return the asynchronous client of the running event loop.

        Args:
            key: the conversation, for the error.

        Raises:
            ProviderError: there is none, or it can't be used in this loop.
        """
        loop = _running_loop()
        with self._lock:
            self._forget_closed_loops()
            held = self._in_loops.get(loop)
            if held is not None and not (held.keeper and held.client.is_closed()):
                return held.client
            client, is_ours = self._for_new_loop(key)
            keeper = self._closing(client, weakref.ref(loop)) if is_ours else None
            self._in_loops[loop] = _InLoop(client, keeper)
        if keeper is not None:
            await anext(keeper)
        return client

    def longest_silence(self, timeout: Any = ...) -> float | None:
        """Return the longest time in seconds without a sign of life: the read timeout times the attempts.

        Args:
            timeout: the timeout that each call is given, if it is given one.

        Returns:
            The longer one, if there are two clients; None without a timeout, or if there is not yet a client.
        """
        with self._lock:
            held = [self._client, self._given_async, *(one.client for one in self._in_loops.values())]
        silences = [_silence(client, timeout) for client in held if client is not None]
        return None if None in silences else max(silences, default=None)  # type: ignore[type-var]

    def renew(self) -> None:
        """Leave the connections to the parent in a forked child; new ones are opened when needed."""
        self._lock = threading.Lock()
        leave_to_parent((self._client, self._given_async, dict(self._in_loops)))
        self._in_loops = weakref.WeakKeyDictionary()
        if self._client is not None:
            self._origin, self._client = self._client, None
        self._was_used_async |= self._given_async is not None and _is_replaceable(self._given_async)

    def _made_here(self, key: str) -> Any:
        if self._make is not None:
            return _from_function(self._make, "client", key, asynchronous=False)
        if self._origin is None:
            raise ProviderError("only async_client was given; pass client as well", key)
        if not self._was_used and not _is_replaceable(self._origin):
            return self._origin
        return _replaced(self._origin, "client", "was used before this process was forked", key)

    def _for_new_loop(self, key: str) -> tuple[Any, bool]:
        """Return a client, and whether it is to be closed with the loop."""
        if self._make_async is not None:
            return _from_function(self._make_async, "async_client", key, asynchronous=True), True
        if self._given_async is None:
            raise ProviderError("only client was given; pass async_client as well", key)
        if not self._was_used_async:
            self._was_used_async = True
            return self._given_async, False
        why = "belongs to another event loop or process"
        return _replaced(self._given_async, "async_client", why, key), True

    async def _closing(self, client: Any, loop: weakref.ref[Any]) -> AsyncGenerator[None, None]:
        """Close a client when its event loop shuts down and closes its asynchronous generators, of which this is
        one."""
        try:
            yield
        finally:
            self._in_loops.pop(loop(), None)  # a generator holds its loop
            await client.close()

    def _forget_closed_loops(self) -> None:
        # A connection that nobody closed holds its loop, so the dictionary alone would never let go of the loop.
        for loop in list(self._in_loops):
            if getattr(loop, "is_closed", bool)():
                del self._in_loops[loop]


@frozen(eq=False)
class _InLoop:
    """A client in its event loop, and what closes it when the loop shuts down; None for a client of the caller's."""

    client: Any
    keeper: AsyncGenerator[None, None] | None = None


def _running_loop() -> Any:
    from anyio.lowlevel import current_token

    token = current_token()
    return getattr(token, "native_token", token)


def _is_function(given: Any) -> bool:
    return callable(given) and not hasattr(given, "messages")


def _check_client(given: Any, name: str, *, asynchronous: bool) -> None:
    """Refuse what is neither a client of the right kind nor a function that returns one."""
    if given is None or (_is_function(given) and not isinstance(given, type)):
        return
    from anthropic._base_client import AsyncAPIClient, SyncAPIClient

    if isinstance(given, type):
        raise InvalidInput(f"{name} is the class {given.__name__}; pass an instance of it")
    if isinstance(given, SyncAPIClient if asynchronous else AsyncAPIClient):
        right = "client" if asynchronous else "async_client"
        raise InvalidInput(f"{name} is a client of type {type(given).__name__}; pass it as {right}")
    if not hasattr(given, "messages"):
        raise InvalidInput(f"{name} is of type {type(given).__name__}; pass a client of the Anthropic SDK")


def _from_function(make: Callable[[], Any], name: str, key: str, *, asynchronous: bool) -> Any:
    client = make()
    try:
        _check_client(client, "it", asynchronous=asynchronous)
    except InvalidInput as error:
        raise ProviderError(f"the function passed as {name} returned no client: {error.message}", key) from None
    if client is None or _is_function(client):
        raise ProviderError(f"the function passed as {name} returned no client of the Anthropic SDK", key)
    check_credentials(client)
    return client


def _is_replaceable(client: Any) -> bool:
    """Whether the client talks over the SDK's own transport, so that another one can be set up like it."""
    from anthropic._base_client import AsyncHttpxClientWrapper, SyncHttpxClientWrapper

    return type(getattr(client, "_client", None)) in {AsyncHttpxClientWrapper, SyncHttpxClientWrapper}


def _replaced(client: Any, name: str, why: str, key: str) -> Any:
    """Return a client with the same settings and new connections.

    Raises:
        ProviderError: it has a transport of the caller's, which nobody else can set up again.
    """
    import anthropic
    import httpx2

    if not _is_replaceable(client):
        raise ProviderError(
            f"the {name} {why}, and its http_client can't be set up again here; "
            f"pass a function that returns a client as {name}",
            key,
        )
    http = client._client
    transport = type(http) if isinstance(http, httpx2.Client) else anthropic.DefaultAsyncHttpxClient
    cache: dict[str, Any] = {}
    if getattr(client, "credentials", None) is not None and hasattr(client, "_token_cache"):
        from anthropic.lib.credentials import TokenCache

        # The cache of the other client may be waiting for a refresh in a thread or loop that is not here.
        cache = {"_extra_kwargs": {"_token_cache": TokenCache(client.credentials)}}
    return client.copy(http_client=transport(base_url=http.base_url, timeout=http.timeout), **cache)


def _silence(client: Any, timeout: Any) -> float | None:
    timeout = client.timeout if timeout is ... else timeout
    seconds = getattr(timeout, "read", timeout)
    return None if seconds is None else float(seconds) * (int(client.max_retries) + 1)


def _async_from_environment() -> Any:
    import anthropic

    # The SDK's own transport wants to be closed by whatever loop happens to run when it is collected.
    return from_environment(lambda: anthropic.AsyncAnthropic(http_client=anthropic.DefaultAsyncHttpxClient()))


def from_environment(make: Any) -> Any:
    """Return a client of the class ``make``, set up by the variables ``ANTHROPIC_…``.

    Raises:
        ProviderError: they do not make one.
    """
    import anthropic
    import httpx2

    try:
        return make()
    except (anthropic.AnthropicError, httpx2.InvalidURL) as error:
        raise ProviderError(
            f"the Anthropic client can't be made from the environment ({type(error).__name__}); "
            "check the variables ANTHROPIC_…"
        ) from error


def check_credentials(client: Any) -> None:
    """Refuse a client without credentials: the SDK looks for a key only when it sends. Clients of other clouds pass.

    Raises:
        ProviderError: the client has nothing to sign in with.
    """
    import anthropic

    if type(client) not in (anthropic.Anthropic, anthropic.AsyncAnthropic) or client.credentials is not None:
        return
    if not {"authorization", "x-api-key"} & {header.lower() for header in client.default_headers}:
        raise ProviderError(
            "no Anthropic credentials were found; set ANTHROPIC_API_KEY, or pass a client that has a key"
        )

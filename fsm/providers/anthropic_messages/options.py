"""The arguments of a provider, checked when it is made, as arguments of the SDK's ``messages.create``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from fsm.content import well_formed
from fsm.errors import InvalidInput
from fsm.providers.anthropic_messages.content import MARKS
from fsm.providers.anthropic_messages.transcript import marks

__all__ = ["Call", "call_of"]

_OWN = frozenset({"max_tokens", "messages", "model", "output_format", "stream", "system", "tools"})
_REFUSED = {"thread": "the API would keep the conversation, and this library sends it with each message"}
_SAMPLING = frozenset({"temperature", "top_k", "top_p"})
"""Arguments that older models take and the SDK does not name."""

_EXTRA = ("extra_body", "extra_headers", "extra_query")


@frozen(kw_only=True)
class Call:
    """The arguments that are the same in every turn.

    Attributes:
        arguments: the arguments of ``messages.create``, without the messages.
        counting: those of them that ``messages.count_tokens`` takes as well.
        is_beta: whether they are for ``beta.messages``.
        parameters: the names of all that the API takes beside the messages.
        marks: how many marks for the cache they have.
    """

    arguments: Mapping[str, Any]
    counting: Mapping[str, Any]
    is_beta: bool
    parameters: frozenset[str]
    marks: int

    def resource(self, client: Any) -> Any:
        """Return the resource of the client that is called."""
        return client.beta.messages if self.is_beta else client.messages


def call_of(options: object, *, model: object, max_tokens: object, system: object, tools: object) -> Call:
    """Check the arguments of a provider.

    Raises:
        InvalidInput: it names the argument, what is wrong with it and what to do.

    >>> call = call_of({"betas": ["x-2025"]}, model="m", max_tokens=9, system=None, tools=())
    >>> dict(call.arguments), call.is_beta
    ({'model': 'm', 'max_tokens': 9, 'betas': ['x-2025']}, True)
    """
    from anthropic.resources.beta.messages import Messages as BetaMessages
    from anthropic.resources.messages import Messages

    _check_own(model, max_tokens, system, tools)
    given = _checked_options(options)
    known, beta = _parameters(Messages.create), _parameters(BetaMessages.create)
    if unknown := given.keys() - known - beta - _SAMPLING:
        raise InvalidInput(
            f"options has {', '.join(sorted(unknown))}, which the SDK does not know; "
            "what only the API knows can be passed in extra_body"
        )
    if sampling := {name: given.pop(name) for name in _SAMPLING & given.keys()}:
        given["extra_body"] = {**sampling, **(given.get("extra_body") or {})}
    own = {"model": model, "max_tokens": max_tokens, "system": system, "tools": tools}
    said = {name: value for name, value in own.items() if value not in (None, (), [])}
    arguments = well_formed({**said, **given})
    found = marks(system) + marks(tools) + (given.get("cache_control") is not None)
    if found > MARKS:
        raise InvalidInput(f"system, tools and options have {found} 'cache_control'; the Messages API takes {MARKS}")
    is_beta = bool(given.keys() - known)
    countable = _parameters((BetaMessages if is_beta else Messages).count_tokens)
    counting = {name: value for name, value in arguments.items() if name in countable}
    if "extra_body" in counting:
        counting["extra_body"] = {name: held for name, held in counting["extra_body"].items() if name in countable}
    return Call(
        arguments=arguments,
        counting=counting,
        is_beta=is_beta,
        parameters=(known | beta | _OWN | _SAMPLING) - {"messages"},
        marks=found,
    )


def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self"}


def _check_own(model: object, max_tokens: object, system: object, tools: object) -> None:
    if not isinstance(model, str) or not model:
        raise InvalidInput("model must be the name of a model, such as 'claude-sonnet-4-5'")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise InvalidInput(f"max_tokens is {max_tokens!r}; pass a whole number of tokens, 1 or more")
    if system is not None and not isinstance(system, str) and not _are_objects(system):
        raise InvalidInput("system must be text, a list of blocks, or None")
    if not _are_objects(tools):
        raise InvalidInput("tools must be a list of tools as the API defines them, each a JSON object")


def _are_objects(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Mapping) for one in value)


def _checked_options(options: object) -> dict[str, Any]:
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise InvalidInput("options must be a mapping from the names of the SDK's arguments to their values")
    for name in _EXTRA:
        if not isinstance(options.get(name) or {}, Mapping):
            raise InvalidInput(f"options[{name!r}] must be a mapping")
    for given in (options, options.get("extra_body") or {}):
        if twice := (_OWN | _REFUSED.keys()) & given.keys():
            why = next(
                (_REFUSED[name] for name in twice if name in _REFUSED), "that is an argument of the provider's own"
            )
            raise InvalidInput(f"options can't set {', '.join(sorted(twice))}; {why}")
    betas = options.get("betas") or []
    if not isinstance(betas, Sequence) or isinstance(betas, str) or not all(isinstance(one, str) for one in betas):
        raise InvalidInput("options['betas'] must be a list of the names of betas")
    return dict(options)

"""The arguments of a provider of Managed Agents, checked when it is constructed."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from fsm.errors import InvalidInput
from fsm.providers.anthropic_agents.content import LABEL_LENGTH, LABELS

__all__ = ["call_of_create", "common_of", "name_of"]

PAIRS = 16
"""How many pairs the metadata of a session may have."""

LABEL_NAME_LENGTH = 64
"""The longest name in a session's metadata, in characters."""

_OWN = frozenset({"agent", "environment_id", "initial_events", "session_id"})
_COMMON = ("betas", "workspace_id", "extra_headers")
"""Options that every call about a session needs, and not only the one that creates it."""


def call_of_create(agent: Any, environment: Any, options: Any) -> dict[str, Any]:
    """Return the arguments of ``sessions.create`` that are the same for every session.

    Raises:
        InvalidInput: it names the argument, what is wrong with it and what to do.
    """
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise InvalidInput(f"options is of type {type(options).__name__}; pass arguments of sessions.create by name")
    if not isinstance(environment, str):
        raise InvalidInput(f"environment is of type {type(environment).__name__}; pass the id that the API gave it")
    if not name_of(agent) or not environment:
        raise InvalidInput("an agent and an environment are needed; pass the ids that the API gave them")
    if twice := _OWN & options.keys():
        raise InvalidInput(f"options can't set {', '.join(sorted(twice))}; that is an argument of the provider's own")
    if unknown := options.keys() - _parameters():
        raise InvalidInput(f"options has {', '.join(sorted(unknown))}, which sessions.create does not take")
    _check_betas(options.get("betas", ()))
    _check_metadata(options.get("metadata") or {})
    return {**options, "agent": agent, "environment_id": environment}


def common_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that every call about a session needs: how the account and the beta are chosen."""
    return {name: options[name] for name in _COMMON if name in options}


def name_of(agent: Any) -> str:
    """Return what tells this agent from others: its id, its version if one is given, and a digest of its overrides.

    Raises:
        InvalidInput: it is neither an id nor a JSON object.
    """
    if isinstance(agent, str):
        return agent
    if not isinstance(agent, Mapping):
        raise InvalidInput(f"agent is of type {type(agent).__name__}; pass its id, or the object that the API takes")
    overrides = {name: value for name, value in agent.items() if name not in {"id", "type", "version"}}
    name = str(agent.get("id") or "")
    if agent.get("version") is not None:
        name += f"@{agent['version']}"
    if overrides:
        name += f"+{_digest(overrides)}"
    return name


def _digest(overrides: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:8]
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("the overrides of the agent can't be written as JSON; pass plain values") from error


def _parameters() -> frozenset[str]:
    from anthropic.resources.beta.sessions import Sessions

    return frozenset(inspect.signature(Sessions.create).parameters) - {"self"}


def _check_betas(betas: Any) -> None:
    if isinstance(betas, str) or not isinstance(betas, Iterable) or not all(isinstance(name, str) for name in betas):
        raise InvalidInput("betas in options must be a list of names, such as ['managed-agents-2026-04-01']")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"the metadata is of type {type(metadata).__name__}; pass pairs of texts")
    if taken := metadata.keys() & set(LABELS):
        raise InvalidInput(f"the metadata can't set {', '.join(sorted(taken))}; the provider does")
    if len(metadata) > PAIRS - len(LABELS):
        raise InvalidInput(f"the metadata has {len(metadata)} pairs; {PAIRS - len(LABELS)} is the most")
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(f"the metadata pair {name!r} must be two texts")
        if len(name) > LABEL_NAME_LENGTH or len(value) > LABEL_LENGTH:
            raise InvalidInput(
                f"the metadata pair {name[:LABEL_NAME_LENGTH]!r} is too long; "
                f"a name has at most {LABEL_NAME_LENGTH} characters and a value {LABEL_LENGTH}"
            )

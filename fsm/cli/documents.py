"""The JSON objects that programs read; their keys are promised.

Times are ISO 8601 in UTC; states, triggers and statuses are the words of the documentation.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from fsm.manager import SessionManager
from fsm.records import Conversation, Message, Session, Transition
from fsm.reply import Reply

__all__ = ["Document", "conversation", "message", "reply", "story"]

Document: TypeAlias = dict[str, Any]


def conversation(record: Conversation) -> Document:
    """A conversation as it stands."""
    return {
        "key": record.key,
        "state": record.state,
        "version": record.version,
        "provider": record.provider,
        "session": record.session_number,
        "session_id": record.session_id,
        "running": None if record.running is None else attrs.asdict(record.running, recurse=False),
        "metadata": record.metadata,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    }


def story(manager: SessionManager, key: str, limit: int | None = None) -> Document:
    """A conversation with the newest ``limit`` of its sessions, turns and transitions."""
    return {
        **conversation(manager.conversations.get(key)),
        "sessions": [_session(record) for record in manager.conversations.sessions(key, limit=limit)],
        "turns": [attrs.asdict(record, recurse=False) for record in manager.conversations.turns(key, limit=limit)],
        "transitions": [_transition(record) for record in manager.conversations.transitions(key, limit=limit)],
    }


def message(record: Message) -> Document:
    """A message."""
    return {
        "number": record.number,
        "turn": record.turn,
        "role": record.role,
        "text": record.text,
        "content": record.content,
        "created_at": record.created_at,
    }


def reply(record: Reply) -> Document:
    """What came back for a message; ``message`` is the sentence for the person at the other end."""
    result = record.result
    return {
        "key": record.key,
        "turn": record.turn,
        "status": record.status,
        "state": record.state,
        "text": record.text,
        "message": record.summary,
        "healed": record.healed,
        "session_id": None if result is None else result.session_id,
        "subtype": None if result is None else result.subtype,
        "stop_reason": None if result is None else result.stop_reason,
        "http_status": None if result is None else result.http_status,
        "usage": None if result is None else result.usage,
        "cost_usd": None if result is None else result.cost_usd,
    }


def _session(record: Session) -> Document:
    return {
        "number": record.number,
        "parent": record.parent,
        "provider": record.provider,
        "session_id": record.session_id,
        "opened_at": record.opened_at,
        "opened_reason": record.opened_reason,
        "closed_at": record.closed_at,
        "closed_reason": record.closed_reason,
    }


def _transition(record: Transition) -> Document:
    return {
        "number": record.number,
        "trigger": record.trigger,
        "from": record.source,
        "to": record.target,
        "turn": record.turn,
        "session": record.session_number,
        "session_id": record.session_id,
        "reason": record.reason,
        "at": record.at,
    }

"""Structured logs with the standard library.

The message of a record is the name of an event, ``{domain}.{action}_{state}`` with the states ``started``,
``completed``, ``failed`` and ``rejected``. The record's fields (``extra``) hold the details. Message text and secrets
are never logged. The reference of log events (``docs/reference/logging.md``) lists them all.
"""

from __future__ import annotations

import logging

from fsm._core.effects import CloseSession, MarkSessionDead, Step
from fsm.events import Result
from fsm.records import TurnStatus
from fsm.reply import Reply

__all__ = ["LOGGER", "log_cleared_session", "log_turn_end"]

LOGGER = logging.getLogger("fsm")
LOGGER.addHandler(logging.NullHandler())


def log_cleared_session(step: Step, result: Result) -> None:
    """Log the ids, errors and stop reason of a session that a step found dead; nothing if it found none."""
    if any(isinstance(effect, CloseSession) for effect in step.effects):
        LOGGER.warning(
            "session.clear_completed",
            extra={
                "conversation": step.after.key,
                "session": step.before.session_number,
                "stale_session_ids": [
                    effect.session_id for effect in step.effects if isinstance(effect, MarkSessionDead)
                ],
                "errors": list(result.errors),
                "stop_reason": result.stop_reason,
                "state": step.after.state.value,
            },
        )


def log_turn_end(reply: Reply, error: BaseException | None) -> None:
    """Log how a turn ended, with the type of the error that ended it, if one did."""
    result = reply.result
    fields: dict[str, object] = {
        "conversation": reply.key,
        "turn": reply.turn,
        "status": reply.status.value,
        "state": reply.state.value,
        "healed": reply.healed,
        "subtype": result and result.subtype,
        "http_status": result and result.http_status,
    }
    if error is not None:
        fields["error"] = type(error.__cause__ or error).__name__
    if reply.status is TurnStatus.SUCCEEDED:
        LOGGER.info("turn.run_completed", extra=fields)
    else:
        LOGGER.warning("turn.run_failed", extra=fields)

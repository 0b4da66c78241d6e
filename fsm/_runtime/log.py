"""Structured logs with the standard library.

The message of a record is the name of an event, ``{domain}.{action}_{state}`` with the states ``started``,
``completed``, ``failed`` and ``rejected``; what there is to know stands in the record's fields (``extra``). Message
text and secrets are never logged. The reference of log
events (``docs/reference/logging.md``) lists them all.
"""

from __future__ import annotations

import logging

from fsm._core.effects import CloseSession, MarkSessionDead, Step
from fsm.events import Result

__all__ = ["LOGGER", "cleared"]

LOGGER = logging.getLogger("fsm")
LOGGER.addHandler(logging.NullHandler())


def cleared(step: Step, result: Result) -> None:
    """Log that a step cleared a dead session: the stale ids, the errors and the stop reason."""
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

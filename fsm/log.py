"""Structured logs with the standard library.

The message of a record is the name of an event, ``{domain}.{action}_{state}`` with the states ``started``,
``completed``, ``failed`` and ``rejected``; what there is to know stands in the record's fields (``extra``). Message
text and secrets are never logged.

===========================  ===========  ==================================================================
``turn.run_started``         debug        a turn was stored and goes to the provider
``turn.run_completed``       info         it succeeded
``turn.run_failed``          warning      it failed or was cut off
``turn.begin_rejected``      info         another turn is running
``session.clear_completed``  warning      a session was reported dead and its id cleared
``session.heal_started``     info         a dead session is being replaced within the turn
``session.reset_completed``  info         a conversation was reset by request
``turn.recover_completed``   warning      a turn whose owner is gone was ended
``store.commit_failed``      error        the database refused a step
``store.restore_completed``  warning      the database had forgotten steps of a running turn; they were stored again
``observer.call_failed``     error        an observer raised
``provider.close_failed``    error        a provider raised while it was closed
===========================  ===========  ==================================================================
"""

from __future__ import annotations

import logging

from fsm.effects import BuryId, CloseSession, Step
from fsm.results import Result

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
                "session": step.before.session,
                "stale_session_ids": [effect.session_id for effect in step.effects if isinstance(effect, BuryId)],
                "errors": list(result.errors),
                "stop_reason": result.stop_reason,
                "state": step.after.state.value,
            },
        )

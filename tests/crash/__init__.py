"""Crash tests: real processes that are killed, stopped and raced, on real databases.

``make test`` runs a bounded share of it; ``make torture`` (``CONVERSATION_FSM_TORTURE=1``) all of it.
"""

import os

import pytest

pytest.register_assert_rewrite("tests.crash.audit")

TORTURE = bool(os.environ.get("CONVERSATION_FSM_TORTURE"))
"""Whether to take all the time it takes."""

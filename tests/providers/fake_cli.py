"""A stand-in for the Claude CLI, for what the real one does not do on demand: print nonsense, beat, hang at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "duration_ms": 1,
    "duration_api_ms": 1,
    "num_turns": 1,
    "session_id": "5e551011-0000-4000-8000-000000000000",
    "result": "Hello.",
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1},
    "terminal_reason": "completed",
}

_SCRIPT = """#!{python}
import json, signal, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["type"] == "control_request":
        answer = {{"subtype": "success", "request_id": asked["request_id"], "response": {{}}}}
        print(json.dumps({{"type": "control_response", "response": answer}}), flush=True)
    else:
        break
for step in json.loads({steps!r}):
    if isinstance(step, str):
        print(step, flush=True)
    elif step > 0:
        time.sleep(step)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
"""


def fake_cli(folder: Path, *steps: Any) -> Path:
    """A CLI that prints these messages (text is printed as it is), sleeps so many seconds, or hangs for a 0."""
    path = folder / "claude"
    written: Sequence[Any] = [step if isinstance(step, str | int | float) else json.dumps(step) for step in steps]
    path.write_text(_SCRIPT.format(python=sys.executable, steps=json.dumps(written)), encoding="utf-8")
    path.chmod(0o755)
    return path


def said(text: str) -> list[dict[str, Any]]:
    """The messages of a text that is streamed."""
    events = (
        {"type": "message_start", "message": {"id": "m1"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
    )
    return [{"type": "stream_event", "uuid": "u", "session_id": "s", "event": event} for event in events]

"""A process dies in the middle of a turn; the next one goes on."""

import subprocess
import sys

# [recover]
from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

WORKER = """
import os
from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

manager = SessionManager(SQLStore("sqlite:///recover.db"), DemoProvider(), lease=1.0)
with manager.stream("ticket-42", "Where is my parcel?") as turn:
    for event in turn:
        os._exit(9)  # as a power cut would
"""

if __name__ == "__main__":
    subprocess.run([sys.executable, "-c", WORKER], check=False)

    manager = SessionManager(SQLStore("sqlite:///recover.db"), DemoProvider(), on_busy="wait", busy_timeout=5.0)
    print("running:", manager.conversations.get("ticket-42").running is not None)
    for conversation in manager.recover():
        print("ended a turn of", conversation.key)
    print(manager.send("ticket-42", "Are you there?").text)
    print([turn.status.value for turn in manager.conversations.turns("ticket-42")])
# [recover end]

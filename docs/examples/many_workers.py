"""Several workers on one database: here two managers, in real life processes on any number of hosts."""

# [wait]
import threading

from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

URL = "sqlite:///workers.db"  # or "postgresql://user:password@host/name"


def worker(name: str) -> None:
    manager = SessionManager(SQLStore(URL), DemoProvider(), on_busy="wait", busy_timeout=120)
    for number in range(3):
        manager.send("ticket-42", f"{name} {number}")


threads = [threading.Thread(target=worker, args=(name,)) for name in ("first", "second")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# [wait end]

# [look]
manager = SessionManager(SQLStore(URL), DemoProvider())
print([turn.number for turn in manager.conversations.turns("ticket-42")])
print(sorted(message.text for message in manager.conversations.messages("ticket-42") if message.role == "user"))
# [look end]

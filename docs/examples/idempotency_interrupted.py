"""An interrupted turn keeps its idempotency key: sending it again is the caller's decision."""

# [interrupted]
from fsm import ProviderError, SessionManager, TurnFailed
from fsm.providers import DemoProvider
from persistence import SQLStore

provider = DemoProvider([ConnectionError("the line is dead")])
manager = SessionManager(SQLStore("sqlite:///interrupted.db"), provider)

try:
    manager.send("slack:C042", "hello", idempotency_key="event-9002")
except ProviderError:
    print("cut off")

stored = manager.send("slack:C042", "hello", idempotency_key="event-9002")
print(stored.status, "| replayed:", stored.replayed, "| requests:", len(provider.requests))

try:
    stored.raise_for_error()
except TurnFailed as failed:
    print(failed)

print(manager.send("slack:C042", "hello", idempotency_key="event-9002, second try").text)
# [interrupted end]

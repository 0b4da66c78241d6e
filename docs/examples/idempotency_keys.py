"""The same message, delivered twice, is sent once."""

# [twice]
from fsm import InvalidInput, SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

provider = DemoProvider()
manager = SessionManager(SQLStore("sqlite:///idempotency.db"), provider)

first = manager.send("slack:C042", "hello", idempotency_key="event-9001")
again = manager.send("slack:C042", "hello", idempotency_key="event-9001")

print(again.text == first.text, again.turn == first.turn, again.replayed)
print("requests:", len(provider.requests), "turns:", len(manager.conversations.turns("slack:C042")))
# [twice end]

# [other]
try:
    manager.send("slack:C042", "something else", idempotency_key="event-9001")
except InvalidInput as error:
    print(error)
# [other end]

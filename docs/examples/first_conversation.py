"""The tutorial: a conversation outlives its provider session."""

# [open]
from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

store = SQLStore("sqlite:///first.db")
provider = DemoProvider()
manager = SessionManager(store, provider)
# [open end]

# [talk]
print(manager.send("ticket-42", "Where is my parcel?").text)
print(manager.send("ticket-42", "It was sent on Monday.").text)

conversation = manager.conversations.get("ticket-42")
print(conversation.state, conversation.session_id)
# [talk end]

# [die]
provider.forget()

reply = manager.send("ticket-42", "Can you see it now?")
print(reply.text)
print("healed:", reply.healed)
# [die end]

# [look]
for move in manager.conversations.transitions("ticket-42"):
    print(f"turn {move.turn}: {move.source} --{move.trigger}--> {move.target}  ({move.reason})")

for session in manager.conversations.sessions("ticket-42"):
    print(f"session {session.number}, parent {session.parent}: {session.session_id}, closed: {session.closed_reason}")
# [look end]

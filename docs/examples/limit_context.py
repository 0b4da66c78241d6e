"""How much a new session is told."""

# [window]
from fsm import ContextWindow, SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

provider = DemoProvider()
manager = SessionManager(SQLStore("sqlite:///context.db"), provider, context=ContextWindow(max_messages=4))

for number in range(1, 6):
    manager.send("ticket-42", f"message {number}")

provider.forget()
print(manager.send("ticket-42", "What do you know?").text)
# [window end]

# [told]
for message in provider.requests[-1].history:
    print(message.role, "|", message.text)
# [told end]

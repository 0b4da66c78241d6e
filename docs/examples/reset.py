"""Starting over, without and with a running turn."""

# [reset]
from fsm import ConversationBusy, SessionManager, TurnSuperseded
from fsm.providers import DemoProvider
from persistence import SQLStore

manager = SessionManager(SQLStore("sqlite:///reset.db"), DemoProvider())
manager.send("ticket-42", "hello")

after = manager.reset("ticket-42", reason="the customer asked for it")
print(after.state, "session", after.session_number, "messages", after.message_count)
print(manager.send("ticket-42", "again").text)
# [reset end]

# [force]
try:
    with manager.stream("ticket-42", "Tell me more.") as turn:
        try:
            manager.reset("ticket-42")
        except ConversationBusy as error:
            print(type(error).__name__)
        manager.reset("ticket-42", reason="stuck", force=True)
        for _ in turn:
            pass
except TurnSuperseded as error:
    print(error.reply.status, "|", manager.conversations.get("ticket-42").state)
# [force end]

# [late]
print([message.text for message in manager.conversations.messages("ticket-42") if message.turn == turn.number])
print(manager.send("ticket-42", "What do you know?").text)
# [late end]

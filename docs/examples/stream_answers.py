"""Reading an answer as it comes, and leaving it early."""

# [stream]
from fsm import Result, SessionManager, TextDelta, ToolResult, ToolUse
from fsm.providers import DemoProvider
from persistence import SQLStore

manager = SessionManager(SQLStore("sqlite:///stream.db"), DemoProvider())

with manager.stream("ticket-42", "Where is my parcel?") as turn:
    for event in turn:
        match event:
            case TextDelta(text):
                print(text, end="", flush=True)
            case ToolUse() | ToolResult():
                pass
            case Result():
                print(f"\n[{event.subtype}, {event.stop_reason}]")

print(turn.reply.status, turn.reply.state)
# [stream end]

# [leave]
with manager.stream("ticket-42", "Tell me more.") as turn:
    for event in turn:
        print(event)
        break

print(turn.reply.status, "|", turn.reply.text)
print(manager.conversations.get("ticket-42").state)
print([message.text for message in manager.conversations.messages("ticket-42", limit=2)])
# [leave end]

"""A conversation with Claude over the Claude Agent SDK, before and after its container is replaced."""

# [send]
from claude_agent_sdk import ClaudeAgentOptions

from fsm import SessionManager
from fsm.providers import ClaudeAgent
from persistence import SQLStore

provider = ClaudeAgent(ClaudeAgentOptions(max_turns=10, setting_sources=[]))
manager = SessionManager(SQLStore("sqlite:///chat.db"), provider)

for text in ("My name is Ada.", "What is my name?"):
    reply = manager.send("ticket-42", text)
    print(reply.text, reply.state.value)
# [send end]

# [restart]
import os
import shutil

shutil.rmtree(os.path.join(os.environ["CLAUDE_CONFIG_DIR"], "projects"))  # what a new container has lost

reply = manager.send("ticket-42", "And now?")
print(reply.text, reply.state.value, "healed:", reply.healed)
print(
    *(f"{move.source.value} → {move.target.value}" for move in manager.conversations.transitions("ticket-42")), sep=", "
)
# [restart end]

# [stop]
from fsm import TextDelta

with manager.stream("ticket-42", "Tell me a long story.") as turn:
    for event in turn:
        if isinstance(event, TextDelta):
            break  # the person has heard enough
print(turn.reply.status.value, turn.reply.state.value)
print(manager.send("ticket-42", "Thank you.").state.value)
# [stop end]

"""A Managed Agent as the provider: sessions that live at the API, and what happens when one is gone."""

import os

from tests.providers.agents_script import called, said, turn
from tests.providers.agents_server import AgentsServer

# The API of this script is one on loopback; yours is found by ANTHROPIC_API_KEY alone.
api = AgentsServer()
api.keeps_alive = False
api.__enter__()
os.environ.update(ANTHROPIC_BASE_URL=api.url, ANTHROPIC_API_KEY="key", NO_PROXY="127.0.0.1")

# [send]
from fsm import SessionManager
from fsm.providers import AnthropicAgents
from persistence import SQLStore

provider = AnthropicAgents(agent="agent_01", environment="env_01")
manager = SessionManager(SQLStore("sqlite:///chat.db"), provider)

reply = manager.send("ticket-42", "My parcel is number 7.")
print(reply.text)
print(reply.state, reply.result.session_id)
# [send end]

api.delete(api.session())
# [healed]
reply = manager.send("ticket-42", "Where is it?")  # meanwhile somebody has deleted the session
print(reply.text)
print(reply.healed, reply.result.session_id)
# [healed end]

ask = called("sevt_2", "refund", "agent.mcp_tool_use", mcp_server_name="shop", evaluated_permission="ask")
api.will(
    turn(called("sevt_1", "track", input={"parcel": 7}), ask, stop="requires_action", waits=("sevt_1", "sevt_2")),
    turn(said("It is in Turin; no refund then.")),
)
# [tools]
reply = manager.send("ticket-42", "Track it, and refund me if it is lost.")
while reply.result.stop_reason == "requires_action":
    answers = []
    for call in reply.result.provider_data["pending"]:
        print("the agent calls", call["name"], "and needs a", call["needs"])
        if call["needs"] == "result":
            answer = {"type": "tool_result", "content": "in Turin"}
        else:
            answer = {"type": "tool_confirmation", "result": "deny", "deny_message": "It is not lost."}
        answers.append({"tool_use_id": call["tool_use_id"], **answer})
    reply = manager.send("ticket-42", answers)
print(reply.text)
# [tools end]

# [content]
photo = {"type": "image", "source": {"type": "url", "url": "https://example.org/parcel.png"}}
manager.send("ticket-42", [{"type": "text", "text": "This is how it arrived."}, photo])
# [content end]

# [refused]
from fsm import InvalidContent

try:
    manager.send("ticket-42", [{"type": "audio", "source": {}}])
except InvalidContent as error:
    print(error)
# [refused end]

api.__exit__()

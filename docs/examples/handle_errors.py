"""Errors of a message, and how each reaches the caller."""

# [script]
from fsm import ProviderError, Result, SessionManager, TurnFailed
from fsm.providers import DemoProvider
from persistence import SQLStore

script = [
    None,  # an ordinary answer
    Result(subtype="success", is_error=True, http_status=429),  # the API refuses, dressed as a success
    ConnectionError("the line is dead"),  # the provider raises
]
manager = SessionManager(SQLStore("sqlite:///errors.db"), DemoProvider(script))
# [script end]

# [reply]
print(manager.send("ticket-42", "Where is my parcel?").text)

reply = manager.send("ticket-42", "Are you sure?")
print(reply.status, "|", reply.state, "|", reply.summary)
# [reply end]

# [raise]
try:
    reply.raise_for_error()
except TurnFailed as failed:
    print(failed)
# [raise end]

# [provider]
try:
    manager.send("ticket-42", "Are you there?")
except ProviderError as error:
    print(error)
    print(error.reply.status, "|", error.reply.state)
# [provider end]

# [next]
print(manager.send("ticket-42", "And now?").text)
# [next end]

"""How a rebuilt context looks to a provider that takes text."""

# [prompt]
from fsm import SessionManager
from fsm.context import as_prompt
from fsm.providers import DemoProvider
from persistence import SQLStore

provider = DemoProvider()
manager = SessionManager(SQLStore("sqlite:///delimiter.db"), provider)
manager.send("ticket-42", "hello")
provider.forget()
manager.send("ticket-42", "again")

request = provider.requests[-1]
print(as_prompt(request.history, request.content))
# [prompt end]

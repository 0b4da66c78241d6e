"""A provider for a service that keeps contexts under an id and loses them without notice."""

import uuid

# [provider]
from fsm import BaseProvider, Result, TextDelta
from fsm.content import text_of
from fsm.context import as_prompt


class EchoProvider(BaseProvider):
    """Talks to a service that repeats what it was told last and counts what it remembers."""

    name = "echo"

    def __init__(self, service):
        self.service = service

    def stream(self, request):
        if request.session_id is None:
            session_id = self.service.create()
            prompt = as_prompt(request.history, request.content)
        else:
            session_id, prompt = request.session_id, text_of(request.content)
        try:
            for piece in self.service.say(session_id, prompt):
                yield TextDelta(piece)
        except LookupError as error:
            yield Result(subtype="error_during_execution", is_error=True, session_id=session_id, errors=[str(error)])
        else:
            yield Result(session_id=session_id, stop_reason="end_turn")


# [provider end]


# [service]
class EchoService:
    """The service. A real one is on the other side of a network."""

    def __init__(self):
        self.contexts = {}

    def create(self):
        session_id = str(uuid.uuid4())
        self.contexts[session_id] = []
        return session_id

    def say(self, session_id, prompt):
        if session_id not in self.contexts:
            raise LookupError("no such context")
        context = self.contexts[session_id]
        context.append(prompt)
        yield f"You said: {prompt.splitlines()[-1]} "
        yield f"(message {len(context)} of this context, {len(prompt.splitlines())} lines)"


# [service end]

# [use]
from fsm import SessionManager
from persistence import SQLStore

service = EchoService()
manager = SessionManager(SQLStore("sqlite:///echo.db"), EchoProvider(service))

print(manager.send("ticket-42", "hello").text)
print(manager.send("ticket-42", "hello again").text)
service.contexts.clear()
reply = manager.send("ticket-42", "still there?")
print(reply.text, "| healed:", reply.healed)
# [use end]

"""A chat backend with nothing but the standard library: POST /conversations/{key} sends a message."""

import io
import json
from http import HTTPStatus
from wsgiref.util import setup_testing_defaults

# [app]
from fsm import ConversationBusy, InvalidInput, ProviderError, SessionManager, StoreError, TurnFailed, TurnSuperseded
from fsm.providers import DemoProvider
from persistence import SQLStore

manager = SessionManager(SQLStore("sqlite:///backend.db"), DemoProvider(), on_busy="wait", busy_timeout=20.0)
manager.recover()


def answer(key, body):
    """One message in, one HTTP status and one JSON object out."""
    try:
        reply = manager.send(key, body["message"], idempotency_key=body.get("id")).raise_for_error()
    except (InvalidInput, KeyError) as error:
        return HTTPStatus.BAD_REQUEST, {"error": str(error)}
    except ConversationBusy:
        return HTTPStatus.CONFLICT, {"error": "an answer is still being written; please wait for it"}
    except TurnFailed as failed:
        return HTTPStatus.BAD_GATEWAY, {"error": failed.reply.summary}
    except (ProviderError, TurnSuperseded):
        return HTTPStatus.BAD_GATEWAY, {"error": "the answer was cut off; please send your message again"}
    except StoreError as error:
        text = error.reply.text if error.reply else None
        return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the answer could not be stored", "text": text}
    return HTTPStatus.OK, {"text": reply.text, "turn": reply.turn}


# [app end]


# [wsgi]
def application(environ, start_response):
    """The WSGI application, for any server that runs one."""
    key = environ["PATH_INFO"].removeprefix("/conversations/")
    body = json.load(environ["wsgi.input"])
    status, payload = answer(key, body)
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json; charset=utf-8")])
    return [json.dumps(payload, ensure_ascii=False).encode()]


# [wsgi end]


def post(path, body):
    """Call the application without a server."""
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(json.dumps(body).encode())}
    setup_testing_defaults(environ)
    print(b"".join(application(environ, lambda status, _headers: print(status))).decode())


post("/conversations/web:7", {"message": "hello", "id": "m-1"})
post("/conversations/web:7", {"message": "hello", "id": "m-1"})
post("/conversations/web:7", {"message": "   "})

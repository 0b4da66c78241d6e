"""The conversations of a store, read and reset without an AI."""

import json

from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

with SQLStore("sqlite:///chat.db") as store, SessionManager(store, DemoProvider()) as manager:
    for key in ("slack:C042", "ticket-42", "ticket-43"):
        manager.send(key, "Where is my parcel?")

# [read]
from fsm import Conversations

with SQLStore("sqlite:///chat.db") as store:
    talks = Conversations(store)
    print(talks.count(), [talk.key for talk in talks.list(limit=2)])
    print(talks.get("ticket-42").state)
    for message in talks.messages("ticket-42", limit=10):
        print(message.role, message.text[:19], sep=": ")
    # [read end]

    # [page]
    after = None
    while page := talks.list(limit=2, after=after):
        for talk in page:
            print(talk.key, talk.turn_count)
        after = page[-1].key
    # [page end]

    # [dict]
    turn = talks.turns("ticket-42")[-1].to_dict()
    print(json.dumps({name: turn[name] for name in ("number", "status", "session_number")}))
    # [dict end]

    # [reset]
    print(talks.reset("ticket-42", reason="the tools have changed").state)
    # [reset end]

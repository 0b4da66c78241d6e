"""An application, its store and its database, checked against the guarantees."""

import sqlite3

# [machine]
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fsm.testing import conversation_machine
from persistence import SQLStore


def open_store(*_):
    return SQLStore("sqlite:///verify.db", durability="relaxed")


Machine = conversation_machine(open_store, reopen=open_store)
run_state_machine_as_test(Machine, settings=settings(max_examples=20, deadline=None))
print("nothing has broken a guarantee")
# [machine end]

# [manager]
from fsm import SessionManager


class Trimming(SessionManager):
    """A manager that cuts every text after 20 characters."""

    def stream(self, key, content, **options):
        return super().stream(key, content[:20] if isinstance(content, str) else content, **options)


class ApplicationMachine(Machine):
    def make_manager(self, store, provider, **options):
        return Trimming(store, provider, **options)


# [manager end]

# [story]
from fsm import Result
from fsm.testing.steps import Act, Send

answer = Act((Result(session_id="s-1"),))
machine = ApplicationMachine()
machine.send(step=Send((answer,)), worker="first", content="hello")
try:
    machine.send(step=Send((answer,)), worker="second", content="Where is my parcel, please?")
except AssertionError as error:
    print(error)
machine.teardown()
# [story end]

# [database]
from fsm.providers import DemoProvider
from fsm.testing import TraceError, check_database

store = SQLStore("sqlite:///chat.db")
manager = SessionManager(store, DemoProvider())
for text in ("hello", "Where is my parcel?"):
    manager.send("ticket-42", text)
manager.reset("ticket-42")
print(check_database(store))

with sqlite3.connect("chat.db") as other:  # somebody repairs a conversation by hand
    other.execute("UPDATE transition SET target = 'stale' WHERE number = 3")
other.close()
try:
    check_database(store)
except TraceError as error:
    print(error)
    print(error.key, error.table, error.number, error.guarantee)
# [database end]

# [simulation]
from fsm.testing import simulate

done = simulate(seed=7, turns=500, make_store=lambda: SQLStore("sqlite:///:memory:"))
assert done == simulate(seed=7, turns=500, make_store=lambda: SQLStore("sqlite:///:memory:"))
print(f"world {done.seed}: every conversation answers in the end")
# [simulation end]

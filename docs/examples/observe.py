"""Seeing what the machine does: observers and logs."""

# [observer]
from collections import Counter

from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

moves = Counter()


def count(transition):
    moves[f"{transition.source} -> {transition.target}"] += 1


provider = DemoProvider()
manager = SessionManager(SQLStore("sqlite:///observe.db"), provider, observers=[count])
manager.send("ticket-42", "hello")
provider.forget()
manager.send("ticket-42", "hello again")

print(dict(moves))
# [observer end]

# [logs]
import json
import logging
import sys

PLAIN = vars(logging.makeLogRecord({}))


class AsJson(logging.Formatter):
    """One JSON object a line: the event, and all the fields that came with it."""

    def format(self, record):
        fields = {name: value for name, value in vars(record).items() if name not in PLAIN}
        return json.dumps({"event": record.getMessage(), "level": record.levelname.lower(), **fields})


handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(AsJson())
logger = logging.getLogger("fsm")
logger.addHandler(handler)
logger.setLevel(logging.INFO)
logger.propagate = False

provider.forget()
manager.send("ticket-42", "still there?")
# [logs end]

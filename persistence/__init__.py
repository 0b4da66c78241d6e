"""Where conversations are kept: the store for SQL databases.

>>> from persistence import SQLStore
>>> store = SQLStore("sqlite:///:memory:")
>>> store.close()
"""

from persistence.arguments import Durability
from persistence.store import SQLStore

__all__ = ["Durability", "SQLStore"]

"""Where conversations are kept: the store for SQL databases.

>>> from persistence import SQLStore
>>> store = SQLStore("sqlite:///:memory:")
>>> store.close()
"""

from persistence.store import Durability, SQLStore

__all__ = ["Durability", "SQLStore"]

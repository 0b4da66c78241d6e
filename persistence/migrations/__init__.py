"""The schema's history: numbered scripts for ``playhouse.migrations``, each applied once, in order.

The database remembers by name which were applied; a name that this library does not know means that a newer version
wrote it, and it is refused. A script that has been released is never changed: the first change of a table freezes the
models of ``0001_initial`` into that script and adds the next number.
"""

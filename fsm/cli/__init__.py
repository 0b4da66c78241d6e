"""The command line, ``conversation-fsm``: talk, look inside, reset, and see the main job done.

It is an application on top of the library, so unlike the rest of ``fsm`` it knows ``persistence``. An application can
offer the same commands over its own provider: ``cli(obj=MyProvider())``.
"""

from fsm.cli.app import cli

__all__ = ["cli"]

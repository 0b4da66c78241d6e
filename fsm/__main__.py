"""``python -m fsm`` and the console script ``conversation-fsm``.

Without the extra ``cli`` it says in one line what is missing, and how to get it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; see :mod:`fsm.cli`."""
    try:
        from fsm.cli import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.stderr.write('error: the command line needs click and rich: pip install "conversation-fsm[cli]"\n')
        sys.exit(2)
    cli(prog_name="conversation-fsm")


if __name__ == "__main__":
    main()

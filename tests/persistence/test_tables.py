"""The tables: made from the models by the first migration, and never changed after a release."""

import sqlite3
import subprocess
import sys
from pathlib import Path

RELEASED = Path(__file__).with_name("0001_initial.sql")


def test_the_tables_of_the_first_release_are_never_changed(tmp_path: Path) -> None:
    """A released migration is never changed; this one takes its tables from the models, so neither are they.

    It runs in another process, because the models are made when they are imported.
    """
    script = "import sys; from persistence import SQLStore; SQLStore(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{tmp_path}/chat.db"], check=True, timeout=60)
    connection = sqlite3.connect(tmp_path / "chat.db")
    made = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'conversation_fsm%' ORDER BY name"
    ).fetchall()
    migrations = connection.execute(
        "SELECT name FROM sqlite_master WHERE name = 'conversation_fsm_migration'"
    ).fetchall()
    connection.close()
    assert len(migrations) == 1
    assert "".join(f"{sql};\n" for (sql,) in made) == RELEASED.read_text()

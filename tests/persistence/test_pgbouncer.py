"""PostgreSQL behind the real PgBouncer in transaction mode: each transaction has another connection to the server."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

pytestmark = pytest.mark.thorough

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SETTINGS = """
[databases]
{database} = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
"""
WORK = """
import sys
from collections import Counter
from threading import Thread
from fsm import SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore

number, url, prepare = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
outcomes = Counter()
with SQLStore(url, prepare=prepare) as store:

    def work(thread):
        manager = SessionManager(store, DemoProvider())
        for turn in range(25):
            try:
                outcomes[manager.send(f"{number}-{thread}", f"hello {turn}").status.value] += 1
            except Exception as error:
                outcomes[f"{type(error).__name__}: {error}"] += 1

    threads = [Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(dict(outcomes))
"""


@pytest.fixture
def admin(postgresql: str) -> Iterator[tuple[psycopg.Connection[Any], str]]:
    """Create a database, since a pooler does not pass ``options`` on; yield its URL past the pooler, and its name."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield connection, name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pooled(admin: tuple[Any, str], postgresql: str) -> Iterator[str]:
    """The URL of the database behind a pooler."""
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("PgBouncer is not installed; .ci/run installs it")
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    server = conninfo_to_dict(postgresql)
    host, user = str(server["host"]), str(server["user"])
    owner = Path(host).stat().st_uid if host.startswith("/") and os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        Path(folder).chmod(0o755)
        settings = Path(folder, "pgbouncer.ini")
        target = make_conninfo("", **{**server, "dbname": admin[1]})
        settings.write_text(SETTINGS.format(database=admin[1], server=target, port=port))
        nobody = {"user": owner or "nobody"} if os.getuid() == 0 else {}
        with subprocess.Popen([PROGRAM, "-q", str(settings)], stderr=subprocess.PIPE, **nobody) as pooler:  # type: ignore[call-overload]
            try:
                url = f"postgresql://{user}@127.0.0.1:{port}/{admin[1]}?sslmode=disable"
                wait_for(url)
                yield url
            finally:
                pooler.terminate()
                pooler.communicate(timeout=30)


def wait_for(url: str) -> None:
    """Wait until the pooler answers."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError), psycopg.connect(url, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")
            return
        time.sleep(0.05)
    raise TimeoutError("PgBouncer does not answer")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("option", "prepare"),
    [("", True), ("", False), ("&prepare_threshold=none", True), ("&prepare_threshold=0", True)],
    ids=["by default", "prepare=False", "prepare_threshold=none", "prepare_threshold=0"],
)
def test_two_hundred_turns_of_four_processes_pass_through_a_pooler(pooled: str, option: str, prepare: bool) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(number), pooled + option, str(prepare)], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    told = [worker.communicate(timeout=100)[0].strip() for worker in workers]
    assert told == ["{'succeeded': 50}"] * 4
    with SQLStore(pooled) as store:
        assert [conversation.turn_count for conversation in store.conversations()] == [25] * 8


def test_a_prepared_statement_of_somebody_else_is_never_run_in_place_of_ours(pooled: str, admin: Any) -> None:
    """psycopg numbers statements from 0 on each connection, and a pooler hands on what others have prepared."""
    with SQLStore(pooled, pool_size=1) as store:
        manager = SessionManager(store, DemoProvider())
        for turn in range(8):
            manager.send("k", f"hello {turn}")
        names: list[str] = []
        for _ in range(6):
            with psycopg.connect(pooled, prepare_threshold=None, autocommit=True) as other:
                names += [name for (name,) in other.execute("SELECT name FROM pg_prepared_statements").fetchall()]
        assert names
        assert all(len(name) > len("_pg3_") + 20 for name in names)


def test_a_turn_outlives_the_loss_of_all_connections_behind_the_pooler(pooled: str, admin: Any) -> None:
    """The pooler keeps the client's connection; the server's end with an error in the middle of a transaction."""
    connection, name = admin
    with SQLStore(pooled) as store:
        manager = SessionManager(store, DemoProvider())
        for turn in range(10):
            assert manager.send("k", f"hello {turn}").status.value == "succeeded"
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,)
            )

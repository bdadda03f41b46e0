"""What a `Database` promises, on both kinds; and that what it acknowledged survives a kill."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagesmith.store.database import Connection, Database, DatabaseError, Duplicate, Retry
from sagesmith.store.resources import Resources

ADD = "insert into tags (arn, key, value) values (:arn, :key, :value)"
COUNT = "select count(*) from tags"


def a_tag(key: str, value: str = "") -> dict[str, str]:
    return {"arn": "a", "key": key, "value": value}


def count(database: Database) -> int:
    with database.read() as connection:
        row = connection.row(COUNT)
    assert row is not None
    return int(row[0])


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        connection.execute(ADD, a_tag("k"))
        raise KeyError

    with pytest.raises(KeyError):
        database.transact(work)
    assert count(database) == 0
    with database.write() as connection:
        assert connection.execute(ADD, a_tag("k")) == 1
    assert count(database) == 1


def test_a_taken_key_is_told(database: Database) -> None:
    with database.write() as connection:
        connection.execute_many(ADD, [a_tag("k"), a_tag("l")])
    with pytest.raises(Duplicate), database.write() as connection:
        connection.execute_many(ADD, [a_tag("m"), a_tag("k")])
    assert count(database) == 2


def test_texts_and_bytes_come_back_and_sort_byte_by_byte(database: Database) -> None:
    keys = ["a", "B", "_", "\u00e9", "Z", "\U0001f600", "\uffff", "a%b", "a:b", "100%"]
    with database.write() as connection:
        connection.execute_many(ADD, [a_tag(key, "50% :done ::x") for key in keys])
    with database.read() as connection:
        rows = connection.rows("select key, value from tags order by key")
        like = connection.rows("select key from tags where key like 'a%' order by key")
    assert rows == [(key, "50% :done ::x") for key in sorted(keys)]
    assert like == [("a",), ("a%b",), ("a:b",)]


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as connection:
        connection.execute(ADD, a_tag("k"))
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(count(database)))
        thread.start()
        thread.join(5)
        assert seen == [0]
    assert count(database) == 1


def test_writers_come_one_after_the_other(database: Database) -> None:
    def work() -> None:
        for _ in range(10):
            with database.write() as connection:
                row = connection.row(COUNT)
                assert row is not None
                connection.execute(ADD, a_tag(str(row[0])))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count(database) == 60


def test_a_write_in_a_write_is_refused(database: Database) -> None:
    with pytest.raises(RuntimeError, match=r"write\(\) inside write\(\)"), database.write(), database.write():
        pass
    with database.write() as connection:
        connection.execute(ADD, a_tag("k"))


def test_a_transaction_that_met_another_is_repeated(database: Database) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> str:
        connection.execute(ADD, a_tag("k"))
        tries.append(1)
        if len(tries) < 3:
            raise Retry
        return "done"

    assert database.transact(work) == "done"
    assert (len(tries), count(database)) == (3, 1)


def test_what_shares_a_commit_fails_alone(database: Database) -> None:
    def work(thread: int) -> list[str]:
        outcomes = []
        for number in range(20):

            def add(connection: Connection, number: int = number) -> str:
                connection.execute(ADD, a_tag(f"{thread}-{number}"))
                if number % 4 == 1:
                    connection.execute(ADD, a_tag(f"{thread}-{number}"))
                if number % 4 == 2:
                    raise KeyError(f"{thread}-{number}")
                return f"{thread}-{number}"

            try:
                outcomes.append(database.transact(add))
            except Duplicate:
                outcomes.append("taken")
            except KeyError as error:
                outcomes.append(f"not {error.args[0]}")
        return outcomes

    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(work, range(8)))
    for thread, outcomes in enumerate(every):
        kinds = ["{}", "taken", "not {}", "{}"] * 5
        assert outcomes == [kind.format(f"{thread}-{number}") for number, kind in enumerate(kinds)]
    with database.read() as connection:
        keys = {key for (key,) in connection.rows("select key from tags")}
    assert keys == {f"{t}-{n}" for t in range(8) for n in range(20) if n % 4 in (0, 3)}


def test_a_transaction_in_a_write_is_refused(database: Database) -> None:
    with database.write(), pytest.raises(RuntimeError, match=r"write\(\) inside write\(\)"):
        database.transact(lambda _: None)


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/a.db").close()
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600


def test_a_closed_database_says_so(database: Database) -> None:
    database.close()
    database.close()
    with pytest.raises(DatabaseError, match="closed"), database.write():
        pass
    result: list[object] = []

    def read() -> None:
        try:
            count(database)
        except DatabaseError as error:
            result.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(10)
    assert "closed" in str(result)


def test_a_wrong_statement_is_told(database: Database) -> None:
    with pytest.raises(DatabaseError), database.read() as connection:
        connection.rows("select nothing from nowhere")
    assert count(database) == 0


@pytest.mark.parametrize(
    "url", ["", "mysql://x", "sqlite://", "sqlite:///", "sqlite:////no/such/folder/a.db"]
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError):
        Database(url)


def test_postgresql_that_is_not_there_is_told() -> None:
    with pytest.raises(DatabaseError, match=r"cannot reach PostgreSQL at 127\.0\.0\.1:1"):
        Database("postgresql+psycopg://user:secret@127.0.0.1:1/x")


PROGRAM = """
import sys
from sagesmith.store.database import Database
from sagesmith.store.resources import Change, Resources
resources = Resources(Database(sys.argv[1]))
run, number = sys.argv[2], 0
while True:
    name = f"{run}-{number}"
    resources.create("model", "r", name, arn=f"arn:{name}", document={"n": number}, tags={"n": str(number)})
    print("made", name, flush=True)
    resources.update("model", "r", name, lambda model: Change(status="Done", document={"n": -model.document["n"]}))
    print("done", name, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_a_kill(database: Database, database_url: str) -> None:
    rng = random.Random(7)
    resources = Resources(database)
    total = 0
    for run in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, database_url, str(run)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline()]
            time.sleep(rng.random() * 0.1)
        finally:
            child.kill()
        lines += child.stdout.read().splitlines()
        child.stdout.close()
        child.wait()
        for line in lines:
            if len(line.split()) != 2:  # cut off by the kill
                continue
            what, name = line.split()
            model = resources.get("model", "r", name)
            assert model is not None
            number = int(name.partition("-")[2])
            assert model.document["n"] in ((-number,) if what == "done" else (number, -number))
            assert (model.status == "Done") >= (what == "done")
            assert resources.tags(model.arn) == {"n": str(number)}
            events = [event.what for event in resources.events(model.arn)]
            assert events == ["created", "status"][: 1 + (model.status == "Done")]
            total += 1
    assert total >= 10


def test_a_database_that_a_kill_left_open_is_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = Database(url)
    database.migrate()
    database.close()
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, url, "0"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.stdout.close()
    child.wait()
    database = Database(url)
    with database.read() as connection:
        assert connection.rows("pragma integrity_check") == [("ok",)]
    database.close()

"""A process that is killed while it puts objects: what it acknowledged is whole, nothing else is left."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from pathlib import Path

from sagesmith.store.database import Database
from sagesmith.store.objects import ObjectStore

ROUNDS = 12

WRITER = """
import hashlib, io, random, sys, threading
from pathlib import Path
from sagesmith.store.database import Database
from sagesmith.store.checksums import Integrity
from sagesmith.store.objects import ObjectStore, Properties
from sagesmith.store.uploads import ClaimedPart

folder, first = Path(sys.argv[1]), int(sys.argv[2])
database = Database(f"sqlite:///{folder}/sagesmith.db")
store = ObjectStore(database, folder / "objects", inline_bytes=1000, min_part_bytes=1000, grace_s=0.01)
threading.Thread(target=store.sweep, daemon=True).start()

def content(rng, number):
    body = f"{number:012d}".encode() + rng.randbytes(rng.choice([10, 20_000, 400_000]))
    return hashlib.sha256(body).digest() + body

def put(worker):
    rng = random.Random(first + worker)
    for number in range(first, first + 1_000_000):
        key, data = f"{worker}/{rng.randrange(8)}", content(rng, number)
        if rng.random() < 0.7:
            store.put("bucket", key, io.BytesIO(data))
        else:
            upload = store.uploads.create("bucket", key, initiator="", properties=Properties())
            pieces = [data[at:at + 150_000] for at in range(0, len(data), 150_000)]
            parts = [
                store.uploads.put_part("bucket", key, upload.id, n, io.BytesIO(piece), Integrity(size=len(piece)))
                for n, piece in enumerate(pieces, 1)
            ]
            store.uploads.complete("bucket", key, upload.id, [ClaimedPart(p.number, p.etag) for p in parts])
        sys.stdout.write(f"{key} {number}\\n")
        sys.stdout.flush()

for worker in range(2):
    threading.Thread(target=put, args=(worker,)).start()
"""


def test_a_killed_process_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/sagesmith.db")
    database.migrate()
    store = ObjectStore(database, tmp_path / "objects")
    store.buckets.create("bucket", region="us-east-1", owner="123456789012")
    rng = random.Random(7)
    acknowledged: dict[str, int] = {}
    for turn in range(ROUNDS):
        run_and_kill(tmp_path, turn * 1_000_000, rng.uniform(0.02, 0.25), acknowledged)
        check_objects(store, acknowledged)
    assert acknowledged

    # What the kills left goes when the next server starts; what is named stays.
    with database.read() as connection:
        for bucket, key, upload in connection.rows("select bucket, key, id from object_uploads"):
            store.uploads.abort(bucket, key, upload)
    store.close()
    last = max((path.stat().st_ctime_ns for path in files_in(tmp_path)), default=0)
    while (tmp_path / "objects").stat().st_ctime_ns <= last:  # the file system's clock goes in steps
        (tmp_path / "objects").touch()
    fresh = ObjectStore(database, tmp_path / "objects")
    fresh.sweep()
    with database.read() as connection:
        named = {row[0] for row in connection.rows("select version from objects where inline = 0")}
        orphans = connection.row(
            "select count(*) from object_contents where version not in (select version from objects)"
        )
    assert {path.name for path in files_in(tmp_path)} == named
    assert orphans == (0,)
    check_objects(fresh, acknowledged)
    database.close()


def run_and_kill(folder: Path, first: int, after_s: float, acknowledged: dict[str, int]) -> None:
    """Let a process put objects; kill it some time after its first acknowledgement."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer, writer.stdout as lines:
        timer = None
        for line in lines:
            if not line.endswith("\n"):
                break
            key, number = line.split()
            acknowledged[key] = max(int(number), acknowledged.get(key, -1))
            if timer is None:
                timer = threading.Timer(after_s, writer.kill)
                timer.start()
        writer.kill()
    if timer is not None:
        timer.cancel()
        timer.join()


def check_objects(store: ObjectStore, acknowledged: dict[str, int]) -> None:
    listed = {one.key: one for one in store.list("bucket").objects}
    assert set(acknowledged) <= set(listed)
    for key, one in listed.items():
        with store.get("bucket", key) as reader:
            data = reader.read()
        assert len(data) == one.size
        assert hashlib.sha256(data[32:]).digest() == data[:32]
        assert int(data[32:44]) >= acknowledged.get(key, -1)


def files_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "objects").rglob("*") if path.is_file()]

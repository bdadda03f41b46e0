"""The small parts of an agent: journal, metric scanner, archives."""

from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path

import pytest

from sagesmith.instance._artifacts import merge, pack
from sagesmith.instance._metrics import MetricScanner
from sagesmith.instance.journal import Journal
from sagesmith.instance.spec import Log, Stage


def test_the_journal_keeps_what_is_not_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for i in range(5):
        journal.append(Stage(str(i)))
    assert len(journal.batch()) == 5
    journal.acknowledge(3)
    assert [b'"4"' in line or b'"3"' in line for line in journal.batch()] == [True, True]
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'[6,{"kind":"st')  # torn by a kill in the middle of writing
    assert [m for _, m in Journal.read(tmp_path / "journal", 4)] == [Stage("4")]
    journal.acknowledge(5)
    assert journal.empty
    assert (tmp_path / "journal").stat().st_size == 0


def test_a_large_message_is_sent_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(Log(((1, "x" * 1_000_000),)))
    journal.append(Stage("next"))
    assert len(journal.batch()[0]) > 1_000_000
    journal.acknowledge(1)
    assert len(journal.batch()) == 1


def test_metrics_are_found_where_their_expression_matches() -> None:
    scanner = MetricScanner(
        [
            ("loss", r"loss=([0-9.]+)"),
            ("either", r"(?:a|b): (\S+)"),
            ("case", r"(?i)ACC=(\S+)"),
            ("broken", r"("),
            ("no group", r"x=\d"),
        ]
    )
    found = [
        (m.name, m.value)
        for line in ("loss=0.5 b: 2e-3", "acc=nan?", "Acc=1")
        for m in scanner.scan(line, 1.0)
    ]
    assert found == [("loss", 0.5), ("either", 0.002), ("case", 1.0)]
    assert len(scanner.refused) == 2


def test_sixty_definitions_do_not_slow_the_log() -> None:
    scanner = MetricScanner((f"m{i}", rf".*\[[0-9]+\].*#011validation-m{i}:(\S+)") for i in range(60))
    line = "[" * 2000
    before = time.process_time()
    for _ in range(1000):
        assert not list(scanner.scan(line, 0.0))
    assert time.process_time() - before < 2


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    model = tmp_path / "ml" / "model"
    model.mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (model / "real").write_text("r")
    (model / "inside").symlink_to("real")
    (model / "outside").symlink_to("../../secret")
    (model / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(model / "pipe")
    left_out = pack(tmp_path / "ml", "model", tmp_path / "a.tar.gz")
    assert sorted(text.split(":")[0] for text in left_out) == ["absolute", "outside", "pipe"]
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert [(m.name, m.issym(), m.uid) for m in tar] == [("inside", True, 0), ("real", False, 0)]


@pytest.mark.parametrize("what", ["model", "output"])
def test_a_folder_that_was_replaced_by_a_link_is_empty(tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "data" / "secret").write_text("s")
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / what).symlink_to(tmp_path / "elsewhere")
    pack(tmp_path / "ml", what if what == "model" else "output/data", tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert tar.getnames() == []


def test_of_equal_names_the_first_hosts_file_is_kept(tmp_path: Path) -> None:
    for host in ("1", "2"):
        (tmp_path / host / "model").mkdir(parents=True)
        (tmp_path / host / "model" / "same").write_text(host)
        (tmp_path / host / "model" / host).write_text(host)
        pack(tmp_path / host, "model", tmp_path / f"{host}.tar.gz")
    twice = merge([tmp_path / "1.tar.gz", tmp_path / "2.tar.gz"], tmp_path / "all.tar.gz")
    assert twice == ["same"]
    with tarfile.open(tmp_path / "all.tar.gz") as tar:
        same = tar.extractfile("same")
        assert same is not None
        assert same.read() == b"1"
        assert sorted(tar.getnames()) == ["1", "2", "same"]

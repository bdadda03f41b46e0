from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sagesmith_algorithms import CustomerError, DataError, IPInsights
from sagesmith_algorithms.ipinsights import training
from sagesmith_algorithms.ipinsights.network import Network, entity_rows, prefix_rows
from sagesmith_algorithms.ipinsights.pairs import Pairs, channel_pairs
from sagesmith_toolkit.environment import Channel
from tests.algorithms import jobs, serving

Rows = list[tuple[str, str]]


def dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def logins(n: int, seed: int, n_users: int = 300) -> Rows:
    """Return *n* logins: each user comes from addresses of two /20 networks of their own."""
    networks = np.random.default_rng(3).integers(0, 1 << 20, (n_users, 2)) << 12
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    addresses = networks[users, rng.integers(0, 2, n)] + rng.integers(0, 1 << 12, n)
    return [(f"user {u}", dotted(a)) for u, a in zip(users.tolist(), addresses.tolist(), strict=True)]


def as_csv(rows: Rows) -> bytes:
    return "".join(f"{entity},{address}\n" for entity, address in rows).encode()


def auc(model: IPInsights, rows: Rows) -> float:
    """Return how well *rows* are told from rows whose addresses are other users'."""
    others = np.random.default_rng(0).permutation(len(rows))
    wrong = [(entity, rows[other][1]) for (entity, _), other in zip(rows, others, strict=True)]
    scores = np.concatenate([model.score_samples(rows), model.score_samples(wrong)])
    return float(roc_auc_score(np.repeat([1, 0], len(rows)), scores))


TRAIN, HELD_OUT = logins(8000, 1), logins(1000, 2)
SETTINGS: dict[str, Any] = {"num_entity_vectors": 600, "vector_dim": 16, "mini_batch_size": 500, "epochs": 5,
                            "learning_rate": 0.01}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> IPInsights:
    return IPInsights(**SETTINGS).fit(TRAIN)


def test_rows_of_names_and_prefixes() -> None:
    rows = entity_rows(["ann", "bob", "ann", "ümläut"], 1000)
    assert rows[0] == rows[2] != rows[1]
    assert ((rows >= 0) & (rows < 1000)).all()
    near, far = 0x0A000001, 0xC0A80001
    found = prefix_rows(np.array([near, near + 1, far], np.uint32), 1000)
    assert (found[0] == found[1]).tolist() == [True] * 5 + [False]  # all but the whole address
    assert (found[0] != found[2]).all()
    edges = prefix_rows(np.array([0, 2**32 - 1], np.uint32), 1000)
    assert edges.min() >= 0
    assert edges.max() < len(Network(IPInsights(1000, 4).parsed(), np.random.default_rng(0)).prefixes.values)


@pytest.mark.parametrize("n_layers", [0, 2])
def test_the_gradients_are_those_of_the_loss(n_layers: int) -> None:
    values = IPInsights(7, 4, num_ip_encoder_layers=n_layers).parsed()
    network = Network(values, np.random.default_rng(0))
    entities, addresses = np.array([1, 2, 1, 3]), np.array([1, 1 << 31, 99, 2**32 - 1], np.uint32)

    def loss() -> float:
        return network._gradients_of(entities, addresses, 2, 2, 1 / 20, np.random.default_rng(1))

    loss()
    gradients = [table._gradients.copy() for table in network.tables]
    for table, gradient in zip(network.tables, gradients, strict=True):
        row = int(table._touched[1])
        given = gradient[row, 2]
        before = table.values[row, 2]
        h = np.float32(2e-3)
        table.values[row, 2] = before + h
        above = loss()
        table.values[row, 2] = before - h
        below = loss()
        table.values[row, 2] = before
        assert given == pytest.approx((above - below) / (2 * float(h)), rel=0.03, abs=1e-4)


@pytest.mark.parametrize(
    "more",
    [{}, {"num_ip_encoder_layers": 0}, {"num_ip_encoder_layers": 4}, {"random_negative_sampling_rate": 3,
     "shuffled_negative_sampling_rate": 2}, {"random_negative_sampling_rate": 0}],
)  # fmt: skip
def test_usual_addresses_are_told_from_others(more: dict[str, Any]) -> None:
    assert auc(IPInsights(**SETTINGS, **more).fit(TRAIN), HELD_OUT) > 0.95


def test_equal_seeds_give_equal_models(model: IPInsights) -> None:
    again = IPInsights(**SETTINGS).fit(TRAIN)
    np.testing.assert_array_equal(model.score_samples(HELD_OUT), again.score_samples(HELD_OUT))


def test_weight_decay_makes_vectors_shorter(model: IPInsights) -> None:
    decayed = IPInsights(**SETTINGS, weight_decay=0.01).fit(TRAIN)
    assert np.abs(decayed.network.entities.values).mean() < np.abs(model.network.entities.values).mean() / 2


@pytest.mark.parametrize("kept", [1 << 30, 4000])
def test_every_pass_has_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("sagesmith_algorithms.ipinsights.pairs._KEPT_BYTES", kept)
    for i in range(4):
        (tmp_path / f"{i}.csv").write_bytes(as_csv(TRAIN[i * 250 : i * 250 + 250]))
    pairs = Pairs(channel_pairs(Channel("train", tmp_path), 600))
    seen = []
    for _ in range(2):
        batches = list(pairs.batches(300, np.random.default_rng(0)))
        assert [len(batch[0]) for batch in batches] == [300, 300, 300, 100]
        seen.append(np.sort(np.concatenate([batch[1] for batch in batches])))
        assert pairs.n_pairs == 1000
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({}, [("ann", "1.2.3")], "X: record 1: '1.2.3' is not an IPv4 address"),
        ({}, [("ann", "1.2.3.4"), ("bob", "::1")], "X: record 2: '::1' is not an IPv4 address"),
        ({}, [("ann",)], "X: record 1 has 1 values"),
        ({}, [], "There is no row"),
        ({"vector_dim": 3}, [], "'vector_dim': expected an integer at least 4"),
        ({"random_negative_sampling_rate": 0, "shuffled_negative_sampling_rate": 0}, [], "must be from 1 to 500, not 0"),
        ({"num_entity_vectors": 250_000_000, "vector_dim": 4096}, [], "GB are free"),
    ],
)  # fmt: skip
def test_refusals(options: dict[str, Any], rows: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        IPInsights(**options).fit(rows)


class TestServing:
    def test_every_form_in_and_out(self, model: IPInsights, tmp_path: Path) -> None:
        model.save(tmp_path)
        predictor = IPInsights.load_predictor(tmp_path, {})
        rows = HELD_OUT[:3]
        scores = model.score_samples(rows)
        bodies = {
            serving.CSV: as_csv(rows),
            serving.JSON: json.dumps({"instances": [
                {"features": rows[0]}, {"data": {"features": {"values": rows[1]}}}, {"features": rows[2]},
            ]}).encode(),
            serving.JSON_LINES: "\n".join(json.dumps({"features": row}) for row in rows).encode(),
        }  # fmt: skip
        for content_type, body in bodies.items():
            for accept in (serving.JSON, serving.JSON_LINES):
                found = serving.answers(serving.ask(predictor, content_type, accept, body))
                assert [list(one) for one in found] == [["dot_product"]] * 3
                np.testing.assert_allclose([one["dot_product"] for one in found], scores, rtol=1e-4)
                verbose = serving.answers(
                    serving.ask(predictor, content_type, f"{accept}; verbose=True", body)
                )
                for one, score in zip(verbose, scores, strict=True):
                    product = np.dot(one["ip_embedding"], one["entity_embedding"])
                    assert product == pytest.approx(score, rel=1e-3, abs=1e-4)
                    assert one["dot_product"] == pytest.approx(score, rel=1e-3, abs=1e-4)

    @pytest.mark.parametrize(
        ("content_type", "accept", "body", "status", "message"),
        [
            (serving.CSV, "", b"ann,1.2.3.x", 400, "record 1: '1.2.3.x' is not an IPv4 address"),
            (serving.CSV, "", b"ann", 400, "record 1 has 1 values"),
            (serving.JSON, "", b'{"instances":[{"features":3}]}', 400, "record 1 must be"),
            (serving.JSON, "", b'{"instances":[]}', 400, "there is no pair"),
            (serving.JSON, "", b"{", 400, "is not JSON"),
            (serving.RECORDIO, "", b"x", 415, "is not supported. Send one of text/csv"),
            (serving.CSV, serving.RECORDIO, b"ann,1.2.3.4", 406, "Choose one of application/json"),
        ],
    )
    def test_refusals(
        self, model: IPInsights, tmp_path: Path, content_type: str, accept: str, body: bytes, status: int, message: str
    ) -> None:  # fmt: skip
        model.save(tmp_path)
        found = serving.ask(IPInsights.load_predictor(tmp_path, {}), content_type, accept, body)
        assert found.status == status
        assert message in found.body.decode()

    def test_other_artifacts_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by IP Insights"):
            IPInsights.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(b"PK\3\4 no archive")
        with pytest.raises(DataError, match="model_algo-1: is not an artifact"):
            IPInsights.load(tmp_path)


GIVEN = {name: str(value) for name, value in SETTINGS.items()}


class TestJob:
    def test_log_and_artifact(self, tmp_path: Path) -> None:
        channels = {
            "train": (serving.CSV, {"a.csv": as_csv(TRAIN[:4000]), "b/c.csv": as_csv(TRAIN[4000:])}),
            "validation": (serving.CSV, {"v.csv": as_csv(HELD_OUT)}),
        }
        given = {**GIVEN, "batch_metrics_publish_interval": "10"}
        job = jobs.start(tmp_path / "ml", "ipinsights", given, channels)
        code, log = job.wait()
        assert code == 0, log
        assert auc(IPInsights.load(job.model_dir), HELD_OUT) > 0.95
        found = re.search(IPInsights.metrics[0].regex, log)
        assert found
        assert float(found[1]) > 0.95
        assert len(re.findall(r"Epoch\[4\] Batch \[\d+\]#011Speed: \S+ samples/sec", log)) == 2

    def test_moves_of_different_steps_add_up_and_those_of_the_same_count_once(self) -> None:
        rates = np.array([[1, 0.02, 0, 0], [1, 0.02, 0.5, 0]], np.float32)
        np.testing.assert_allclose(training._share(rates), [0.5, 0.99, 1, 0], atol=1e-5)

    def test_two_hosts_are_as_good_as_one(self, tmp_path: Path) -> None:
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "ipinsights", GIVEN, {"train": (serving.CSV, {"part": as_csv(part)})},
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (TRAIN[:4000], TRAIN[4000:]), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        assert auc(IPInsights.load(started[0].model_dir), HELD_OUT) > 0.93
        assert not list(started[1].model_dir.iterdir())

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"ann,1.2.3.4\nbob\n", "data: line 2 has 1 columns; expected two"),
            (b"user,ip\nann,1.2.3.4\n", "data: line 1: 'ip' is not an IPv4 address"),
            (
                b"ann,1.2.3.4\nann,1.2.3.4\nbob,1.2.3.400\n",
                "data: line 3: '1.2.3.400' is not an IPv4 address",
            ),
            (b"", "There is no row in the channel 'train'"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(self, tmp_path: Path, content: bytes, message: str) -> None:
        job = jobs.start(tmp_path / "ml", "ipinsights", GIVEN, {"train": (serving.CSV, {"data": content})})
        assert job.wait()[0] == 1
        assert message in job.failure

    def test_another_content_type_is_refused(self, tmp_path: Path) -> None:
        channels = {"train": (serving.RECORDIO, {"data": b"x"})}
        job = jobs.start(tmp_path / "ml", "ipinsights", GIVEN, channels)
        assert job.wait()[0] == 1
        assert "expected text/csv" in job.failure

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from sagesmith_algorithms import BlazingText, CustomerError, DataError
from sagesmith_algorithms.blazingtext import fasttext, kernels, words
from sagesmith_algorithms.blazingtext.text import Text
from tests.algorithms import jobs, serving

Array = npt.NDArray[Any]
N_TOPICS, PER_TOPIC = 8, 25


def sentences(n: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return *n* lines of ten words of one topic each, and some words that all have, and the topics."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, N_TOPICS, n).tolist()
    lines = []
    for topic in topics:
        own = [f"t{topic}w{i}" for i in rng.integers(0, PER_TOPIC, 10)]
        lines.append(" ".join([*own, *(f"common{i}" for i in rng.integers(0, 5, 4))]))
    return lines, topics


LINES, TOPICS = sentences(3000)
HELD_OUT, HELD_OUT_TOPICS = sentences(400, 1)
SMALL: dict[str, Any] = {"vector_dim": 24, "epochs": 5, "sampling_threshold": 0.01}


def same_topic(model: BlazingText) -> float:
    """Return the share of the five nearest neighbors of topics' words that belong to the same topic."""
    known = [word for word in model.model.words if word.startswith("t")]
    vectors = model.transform(known)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:6]
    topics = np.array([word[:2] for word in known])
    return float((topics[near] == topics[:, None]).mean())


class TestText:
    def test_words_get_numbers(self) -> None:
        text = Text.of([b"a b  a\n\tc\r\n", b"b ab"])
        assert text.words == [b"a", b"b", b"c", b"ab"]
        assert text.ids.tolist() == [0, 1, 0, -1, 2, -1, 1, 3, -1]
        assert text.counts.tolist() == [2, 2, 1, 1]
        assert text.renumbered(np.array([5, -2, 7, -2], np.int32)).tolist() == [5, 5, -1, 7, -1, -1]

    def test_many_words_grow_the_table(self) -> None:
        given = [b"w%d" % i for i in range(100_000)]
        text = Text.of([b" ".join(given) + b"\n" + b" ".join(reversed(given)) + b"\n"])
        assert text.words == given
        assert text.ids.tolist() == [*range(100_000), -1, *reversed(range(100_000)), -1]

    def test_no_text(self) -> None:
        assert Text.of([]).ids.tolist() == []


class TestHashes:
    def test_words_are_hashed_as_fasttext_does(self) -> None:
        assert fasttext.word_hash("") == 2166136261
        assert fasttext.word_hash("a") == 0xE40C292C  # FNV-1a
        assert fasttext.word_hash("foobar") == 0xBF9CF968
        given = ["", "a", "foobar", "ümläut"]
        out = np.empty(4, np.uint32)
        raw = b"".join(word.encode() for word in given)
        kernels.hash_words(
            np.frombuffer(bytearray(raw), np.uint8), np.cumsum([len(w.encode()) for w in given]), out
        )
        assert out.tolist() == [fasttext.word_hash(word) for word in given]

    def test_runs_of_words_are_hashed_as_fasttext_does(self) -> None:
        hashes = np.array([3, 5, 0xFFFFFFFF, 7], np.uint32)
        out = np.empty(4, np.int64)
        kernels.ngrams(hashes, np.array([3, 4]), 3, 1000, out)
        factor, whole = 116049371, 1 << 64
        first = 3 * factor + 5
        expected = [first, first * factor - 1, 5 * factor - 1]  # 0xFFFFFFFF is -1, as an int32
        assert out[:3].tolist() == [value % whole % 1000 for value in expected]

    def test_parts_of_a_word(self) -> None:
        expected = ["<a", "<ab", "a", "ab", "ab>", "b", "b>"]
        found = fasttext.subword_buckets("ab", 1, 3, 1 << 31)
        assert found == [fasttext.word_hash(part) % (1 << 31) for part in expected]


@pytest.mark.parametrize("mode", ["batch_skipgram", "skipgram", "cbow"])
def test_words_of_a_topic_are_near_each_other(mode: str) -> None:
    assert same_topic(BlazingText(mode, **SMALL).fit(LINES)) > 0.95


@pytest.mark.parametrize(
    "more",
    [{"batch_size": 1}, {"batch_size": 3, "negative_samples": 2}, {"window_size": 9, "vector_dim": 7}],
)
def test_batches_of_every_size(more: dict[str, Any]) -> None:
    assert same_topic(BlazingText("batch_skipgram", **{**SMALL, **more, "epochs": 12}).fit(LINES)) > 0.9


def test_a_batch_is_what_its_pairs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """One window without negative samples, worked by hand: inputs and outputs change as the logistic loss says."""
    monkeypatch.setattr(words, "_NEGATIVES", 4)
    ids = np.array([0, 1, 2, -1], np.int32)
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    left, right = inputs.astype(float), outputs.astype(float)
    for target, context in ((0, [1]), (1, [0, 2]), (2, [1])):
        steps = 0.1 * (1 - 1 / (1 + np.exp(-left[context] @ right[target])))
        change = steps[:, None] * right[target]
        right[target] += steps @ left[context]
        left[context] += change
    keep, table = np.ones(3, np.float32), np.zeros(4, np.int32)
    kernels.batch_skipgram(
        inputs, outputs, 11, ids, 0, 4, keep, table, 1, 0, np.zeros(1), 0, 1e9, np.float32(0.1), np.uint64(1)
    )
    np.testing.assert_allclose(inputs, left, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["skipgram", "cbow"])
def test_subwords_give_vectors_to_unknown_words(mode: str, tmp_path: Path) -> None:
    model = BlazingText(mode, **SMALL, subwords=True, buckets=5000).fit(LINES)
    assert same_topic(model) > 0.9
    unknown = model.vector("t3w99")
    known = model.transform([f"t{topic}w1" for topic in range(N_TOPICS)])
    cosines = known @ unknown / np.linalg.norm(known, axis=1) / np.linalg.norm(unknown)
    assert int(cosines.argmax()) == 3
    model.save(tmp_path)
    loaded = BlazingText.load(tmp_path)
    np.testing.assert_allclose(loaded.vector("t3w99"), unknown, rtol=1e-5, atol=1e-7)


class TestSupervised:
    def test_it_is_as_good_as_a_linear_model(self) -> None:
        digits, labels = load_digits(return_X_y=True)
        texts = [" ".join(f"p{i}x{int(v) // 4}" for i, v in enumerate(row) if v) for row in digits]
        model = BlazingText("supervised", vector_dim=10, epochs=20, learning_rate=0.5, word_ngrams=1).fit(
            texts[:1200], labels[:1200]
        )
        found = np.mean(np.array(model.predict(texts[1200:])) == labels[1200:].astype(str))
        counter = CountVectorizer(token_pattern=r"\S+").fit(texts[:1200])
        linear = LogisticRegression(max_iter=500).fit(counter.transform(texts[:1200]), labels[:1200])
        assert found > linear.score(counter.transform(texts[1200:]), labels[1200:]) - 0.02
        np.testing.assert_allclose(model.predict_proba(texts[:9]).sum(axis=1), 1, rtol=1e-5)

    def test_runs_of_words_tell_their_order(self) -> None:
        texts, labels = ["a b a b", "b a a b", "a a b b", "b b a a"] * 50, ["x", "y", "z", "x"] * 50
        options: dict[str, Any] = {"vector_dim": 10, "epochs": 30, "learning_rate": 0.5, "buckets": 1000}
        assert BlazingText("supervised", word_ngrams=3, **options).fit(texts, labels).predict(texts) == labels
        assert BlazingText("supervised", word_ngrams=1, **options).fit(texts, labels).predict(texts) != labels

    def test_lines_may_have_several_labels(self) -> None:
        model = BlazingText("supervised", vector_dim=8, epochs=20, learning_rate=0.5).fit(
            ["sun sand sea", "snow ski ice"] * 50, [["beach", "warm"], ["winter"]] * 50
        )
        row = dict(zip(model.classes_, model.predict_proba(["sand sea"])[0].tolist(), strict=True))
        assert row["winter"] < 0.1
        assert row["beach"] == pytest.approx(row["warm"], abs=0.2)
        assert model.predict_proba(["xyz"]).sum() == pytest.approx(1)  # the end of the line is known

    def test_the_file_is_that_of_fasttext(self, tmp_path: Path) -> None:
        model = BlazingText("supervised", vector_dim=8, buckets=1000).fit(LINES[:200], TOPICS[:200])
        model.save(tmp_path)
        data = (tmp_path / "model.bin").read_bytes()
        magic, version, dim = struct.unpack_from("<iii", data)
        assert (magic, version, dim) == (793712314, 12, 8)
        loaded = BlazingText.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict_proba(HELD_OUT), model.predict_proba(HELD_OUT))
        assert loaded.model.inputs.shape == (len(model.model.words) + 1000, 8)
        assert len(data) == (tmp_path / "model.bin").stat().st_size


def test_equal_seeds_give_equal_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_NUM_CPUS", "1")
    one, two, other = (BlazingText("cbow", **SMALL, seed=seed).fit(LINES[:300]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.model.inputs, two.model.inputs)
    assert (one.model.inputs != other.model.inputs).any()


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("skip-gram", {}, "Did you mean 'skipgram'"),
        ("supervised", {"window_size": 3}, "'window_size' has no effect with mode=supervised"),
        ("cbow", {"word_ngrams": 3}, "'word_ngrams' has no effect with mode=cbow"),
        ("batch_skipgram", {"subwords": True}, "skipgram and cbow"),
        ("cbow", {"min_char": 7}, "min_char=7 is more than max_char=6"),
        ("cbow", {"min_count": 1000}, "None of the"),
        ("supervised", {}, "has 0 labels; at least 2 are needed"),
        ("batch_skipgram", {"learning_rate": 1e6, "sampling_threshold": 1}, "choose a smaller one"),
    ],
)
def test_refusals(mode: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        BlazingText(mode, **options).fit(LINES[:100])


class TestArtifact:
    def test_vectors_are_those_of_word2vec(self, tmp_path: Path) -> None:
        model = BlazingText("skipgram", **SMALL).fit(LINES)
        model.save(tmp_path)
        lines = (tmp_path / "vectors.txt").read_text().splitlines()
        assert lines[0] == f"{len(model.model.words)} 24"
        word, *values = lines[1].split(" ")
        assert word == model.model.words[0]
        np.testing.assert_allclose([float(v) for v in values], model.vector(word), rtol=1e-5)
        loaded = BlazingText.load(tmp_path)
        np.testing.assert_array_equal(loaded.transform(["t1w1", "xyz"]), model.transform(["t1w1", "xyz"]))
        assert not loaded.vector("xyz").any()

    @pytest.mark.parametrize("cut", [4, 60, 200, -8])
    def test_others_are_refused(self, tmp_path: Path, cut: int) -> None:
        with pytest.raises(CustomerError, match="not made by BlazingText"):
            BlazingText.load(tmp_path)
        BlazingText("cbow", **SMALL).fit(LINES[:300]).save(tmp_path)
        path = tmp_path / "vectors.bin"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(DataError, match=r"vectors\.bin: is not a model of fastText"):
            BlazingText.load(tmp_path)


class TestServing:
    def test_words(self, tmp_path: Path) -> None:
        model = BlazingText("cbow", **SMALL).fit(LINES)
        model.save(tmp_path)
        predictor = BlazingText.load_predictor(tmp_path, {})
        found = serving.ask(predictor, serving.JSON, "", b'{"instances": ["t1w1", "xyz"]}')
        assert found.content_type == serving.JSON
        first, second = json.loads(found.body)
        assert (first["word"], second["word"]) == ("t1w1", "xyz")
        np.testing.assert_allclose(first["vector"], model.vector("t1w1"), rtol=1e-6)
        assert second["vector"] == [0.0] * 24

    def test_sentences(self, tmp_path: Path) -> None:
        BlazingText("supervised", epochs=10, vector_dim=10, learning_rate=0.5, buckets=1000).fit(
            LINES, TOPICS
        ).save(tmp_path)
        predictor = BlazingText.load_predictor(tmp_path, {})
        asked = json.dumps({"instances": HELD_OUT[:50], "configuration": {"k": 3}}).encode()
        found = json.loads(serving.ask(predictor, serving.JSON, "", asked).body)
        labels = [one["label"][0] for one in found]
        assert labels == [f"__label__{topic}" for topic in HELD_OUT_TOPICS[:50]]
        assert all(
            len(one["prob"]) == 3 and one["prob"] == sorted(one["prob"], reverse=True) for one in found
        )
        asked = b'{"source": "t2w1 t2w2"}\n{"source": "t3w1", "k": 2}\n'
        response = serving.ask(predictor, serving.JSON_LINES, "", asked)
        assert response.content_type == serving.JSON_LINES
        lines = [json.loads(line) for line in response.body.splitlines()]
        assert [len(line["prob"]) for line in lines] == [1, 2]
        assert [line["label"][0] for line in lines] == ["__label__2", "__label__3"]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"instances": [1]}', "must be"),
            (b'{"instances": []}', "must be"),
            (b'["a"]', "must be"),
            (b'{"instances": ["a"], "configuration": {"k": 0}}', "must be an integer at least 1, not 0"),
            (b"{", "is not JSON"),
        ],
    )
    def test_refusals(self, tmp_path: Path, body: bytes, message: str) -> None:
        BlazingText("cbow", **SMALL).fit(LINES[:300]).save(tmp_path)
        found = serving.ask(BlazingText.load_predictor(tmp_path, {}), serving.JSON, "", body)
        assert found.status == 400
        assert message in found.body.decode()


def as_text(lines: list[str], labels: list[int] | None = None) -> bytes:
    if labels is not None:
        lines = [f"__label__{label} {line}" for label, line in zip(labels, lines, strict=True)]
    return "\n".join(lines).encode()


GIVEN = {"mode": "batch_skipgram", "vector_dim": "24", "sampling_threshold": "0.01"}


class TestJob:
    def test_words_and_their_evaluation(self, tmp_path: Path) -> None:
        pairs = [
            (f"t{a}w{i}", f"t{b}w{i + 1}", 9 if a == b else 1)
            for i in range(5)
            for a in (0, 1)
            for b in (0, 1)
        ]
        scores = "Word 1,Word 2,Human\n" + "".join(f"{a},{b},{s}\n" for a, b, s in pairs) + "tiger,cat,7\n"
        channels = {
            "train": ("", {"text": as_text(LINES)}),
            "validation": ("text/plain", {"pairs.csv": scores.encode()}),
        }
        job = jobs.start(tmp_path / "ml", "blazingtext", GIVEN, channels)
        code, log = job.wait()
        assert code == 0, log
        assert same_topic(BlazingText.load(job.model_dir)) > 0.95
        found = re.search(BlazingText.metrics[0].regex, log)
        assert found
        assert float(found[1]) > 0.8
        kept = json.loads((job.model_dir / "eval.json").read_text())
        assert (kept["total_pairs"], kept["not_found"]) == (21, 1)
        assert kept["mean_rho"] == pytest.approx(float(found[1]))
        assert re.search(r"##### Alpha: \S+  Progress: 100\.00%  Million Words/sec: \S+ #####", log)

    def test_labels_and_early_stopping(self, tmp_path: Path) -> None:
        given = {"mode": "supervised", "epochs": "50", "min_epochs": "3", "patience": "2", "early_stopping": "true",
                 "learning_rate": "0.5", "vector_dim": "10"}  # fmt: skip
        channels = {
            "train": ("text/plain", {"a": as_text(LINES, TOPICS)}),
            "validation": ("text/plain", {"b": as_text(HELD_OUT, HELD_OUT_TOPICS)}),
        }
        job = jobs.start(tmp_path / "ml", "blazingtext", given, channels)
        code, log = job.wait()
        assert code == 0, log
        assert 3 <= log.count("End of epoch") < 20
        found = re.search(BlazingText.metrics[2].regex, log)
        assert found
        assert float(found[1]) == 1.0
        size = (job.model_dir / "model.bin").stat()
        assert size.st_size > 80_000_000  # two million buckets
        assert size.st_blocks * 512 < 40_000_000  # most of them holes

    def test_two_hosts_make_vectors_together(self, tmp_path: Path) -> None:
        hosts = ("127.0.1.1", "127.0.1.2")
        given = {**GIVEN, "epochs": "10"}
        started = [
            jobs.start(
                tmp_path / host, "blazingtext", given, {"train": ("text/plain", {"part": as_text(part)})},
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (LINES[:1500], LINES[1500:]), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        model = BlazingText.load(started[0].model_dir)
        assert same_topic(model) > 0.9
        assert sum(model.model.counts) == sum(len(line.split()) for line in LINES)
        assert not list(started[1].model_dir.iterdir())

    @pytest.mark.parametrize(
        ("given", "hosts", "message"),
        [
            ({"mode": "cbow"}, ("algo-1", "algo-2"), "mode=cbow trains on one instance"),
            ({"mode": "supervised", "early_stopping": "true"}, ("algo-1",), "needs the channel 'validation'"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, given: dict[str, str], hosts: tuple[str, ...], message: str
    ) -> None:
        channels = {"train": ("text/plain", {"a": as_text(LINES[:50], TOPICS[:50])})}
        job = jobs.start(tmp_path / "ml", "blazingtext", given, channels, hosts=hosts)
        assert job.wait()[0] == 1
        assert message in job.failure

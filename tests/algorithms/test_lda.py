from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.decomposition import LatentDirichletAllocation

from sagesmith_algorithms import LDA, CustomerError, DataError
from sagesmith_algorithms.formats import csv, mxnet, recordio
from sagesmith_algorithms.lda import spectral
from sagesmith_algorithms.lda.corpus import Corpus
from tests.algorithms import jobs, serving

Array = npt.NDArray[Any]
ALPHA, N_TOPICS, N_WORDS = 0.1, 6, 200


def text(n_documents: int, seed: int, length: int = 60) -> tuple[Array, Array]:
    """Return counts of documents that LDA itself would make, and the topics."""
    topics = np.random.default_rng(5).dirichlet(np.full(N_WORDS, 0.05), N_TOPICS)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(N_TOPICS, ALPHA), n_documents)
    return np.stack([rng.multinomial(length, row) for row in shares @ topics]).astype(np.float32), topics


COUNTS, TOPICS = text(1500, 1)
HELD_OUT, _ = text(300, 2)


def cosine(found: Array) -> float:
    """Return the mean cosine of the true topics to the ones found that are nearest."""
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (TOPICS, found))
    rows, columns = linear_sum_assignment(-(a @ b.T))
    return float((a @ b.T)[rows, columns].mean())


@pytest.fixture(scope="module")
def model() -> LDA:
    return LDA(num_topics=N_TOPICS, alpha0=ALPHA * N_TOPICS).fit(COUNTS)


def test_a_tensor_worked_by_hand() -> None:
    vectors = np.array([[0.6, 0.8], [0.8, -0.6]])
    tensor = np.einsum("ak,bk,ck,k->abc", vectors, vectors, vectors, [3.0, 2.0])
    found, values = spectral.decompose(
        tensor, restarts=3, iterations=100, tol=1e-12, rng=np.random.default_rng(0)
    )
    order = np.argsort(-values)
    np.testing.assert_allclose(values[order], [3, 2], rtol=1e-6)
    np.testing.assert_allclose(found[:, order], vectors, rtol=1e-6)


def test_the_moments_alone_find_the_topics() -> None:
    corpus = Corpus(lambda _: iter([csr_matrix(COUNTS)]), limit=10000, n_threads=1)
    found = spectral.spectral_topics(
        corpus, N_WORDS, N_TOPICS, alpha0=ALPHA * N_TOPICS, restarts=3, iterations=100, tol=1e-8,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert cosine(found.words.T) > 0.98
    assert found.weights.sum() == pytest.approx(1)


def test_the_topics_are_found(model: LDA) -> None:
    assert cosine(model.components_) > 0.995
    np.testing.assert_allclose(model.components_.sum(axis=1), 1, rtol=1e-5)
    assert model.alpha_.sum() == pytest.approx(ALPHA * N_TOPICS)


def test_held_out_words_are_as_likely_as_under_scikit_learn(model: LDA) -> None:
    reference = LatentDirichletAllocation(
        N_TOPICS, doc_topic_prior=ALPHA, topic_word_prior=0.05, max_iter=10, random_state=0
    ).fit(COUNTS)
    theirs = LDA(num_topics=N_TOPICS)
    theirs.alpha_ = np.full(N_TOPICS, ALPHA, np.float32)
    theirs.components_ = (reference.components_ / reference.components_.sum(axis=1)[:, None]).astype(
        np.float32
    )
    assert model.score(HELD_OUT) > theirs.score(HELD_OUT)
    # The bound is scikit-learn's own, but for the uncertainty of the topics, which it subtracts.
    assert theirs.score(HELD_OUT) > -np.log(reference.perplexity(HELD_OUT))
    assert model.perplexity(HELD_OUT) == pytest.approx(np.exp(-model.score(HELD_OUT)))


def test_mixtures_are_those_of_scikit_learn() -> None:
    reference = LatentDirichletAllocation(4, doc_topic_prior=0.3, max_iter=3, random_state=0).fit(COUNTS)
    model = LDA(num_topics=4)
    model.alpha_ = np.full(4, 0.3, np.float32)
    model.components_ = np.asarray(reference.exp_dirichlet_component_, np.float32)
    np.testing.assert_allclose(model.transform(HELD_OUT), reference.transform(HELD_OUT), atol=0.01)


def test_threads_and_sparseness_do_not_change_the_model(model: LDA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagesmith_algorithms.lda.corpus._BLOCK_DOCUMENTS", 400)
    found = []
    for n_threads in ("1", "2"):
        monkeypatch.setenv("SM_NUM_CPUS", n_threads)
        found.append(LDA(num_topics=3).fit(csr_matrix(COUNTS)).components_)
    np.testing.assert_array_equal(found[0], found[1])
    dense = LDA(num_topics=3).fit(COUNTS).components_
    np.testing.assert_array_equal(found[0], dense)


def test_documents_beyond_mini_batch_size_are_read_again() -> None:
    passes: list[int] = []

    def read(number: int) -> Any:
        passes.append(number)
        yield from (csr_matrix(part) for part in np.array_split(COUNTS, 3))

    from sagesmith_algorithms.lda.model import fit

    given = {"num_topics": N_TOPICS, "feature_dim": N_WORDS, "mini_batch_size": 100, "alpha0": 0.6}
    fitted = fit(
        Corpus(read, limit=100, n_threads=1), LDA.hyperparameters.parse(given), np.random.default_rng(0)
    )
    assert cosine(fitted.beta) > 0.99
    assert passes == list(range(len(passes)))
    assert len(passes) > 10


@pytest.mark.parametrize("n_documents", [1, 4])
def test_few_documents_and_many_topics(n_documents: int) -> None:
    model = LDA(num_topics=9, alpha0=3).fit(COUNTS[:n_documents])
    assert np.isfinite(model.components_).all()
    np.testing.assert_allclose(model.components_.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(model.transform(np.zeros((1, N_WORDS))).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, [[1.0, 2.0], [1.0, -2.0]], "X, record 2: word 1 has the count -2"),
        ({}, [[np.nan, 2.0]], "X, record 1: there are missing"),
        ({}, [[0.0, 0.0]], "all documents of the channel 'train' are empty"),
        ({}, np.empty((0, 3)), "there is no row"),
        ({"num_topics": 0}, [[1.0]], "'num_topics': expected an integer at least 1"),
        ({"alpha0": 0}, [[1.0]], "'alpha0': expected a number above 0"),
        ({"num_topic": 3}, [[1.0]], "Did you mean 'num_topics'"),
    ],
)
def test_refusals(options: dict[str, Any], data: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        LDA(**options).fit(np.asarray(data))


class TestArtifact:
    def test_it_has_the_arrays_of_aws(self, model: LDA, tmp_path: Path) -> None:
        model.save(tmp_path)
        alpha, beta = mxnet.load((tmp_path / "model_algo-1").read_bytes())
        assert alpha.shape == (N_TOPICS,)
        assert beta.shape == (N_TOPICS, N_WORDS)
        np.testing.assert_array_equal(LDA.load(tmp_path).transform(HELD_OUT), model.transform(HELD_OUT))

    def test_others_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by LDA"):
            LDA.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(mxnet.dump([np.ones(3, np.float32)]))
        with pytest.raises(DataError, match="model_algo-1: does not hold alpha and beta"):
            LDA.load(tmp_path)


def test_every_form_in_and_out(model: LDA, tmp_path: Path) -> None:
    model.save(tmp_path)
    predictor = LDA.load_predictor(tmp_path, {})
    expected = [{"topic_mixture": row.tolist()} for row in model.transform(HELD_OUT[:3])]
    serving.check_every_form(predictor, HELD_OUT[:3], expected)
    sparse = b'{"instances":[{"data":{"features":{"keys":[1,7],"shape":[200],"values":[2,1]}}}]}'
    row = np.zeros((1, N_WORDS))
    row[0, [1, 7]] = 2, 1
    answer = serving.answers(serving.ask(predictor, serving.JSON, "", sparse))
    np.testing.assert_allclose(answer[0]["topic_mixture"], model.transform(row)[0], rtol=1e-5)
    wrong = serving.ask(predictor, serving.CSV, "", b",".join([b"-1"] * N_WORDS))
    assert (wrong.status, wrong.body) == (400, b"There are negative values; counts of words are 0 or more.")


GIVEN = {"num_topics": "6", "feature_dim": "200", "mini_batch_size": "1500", "alpha0": "0.6"}


class TestJob:
    def test_log_and_artifact(self, tmp_path: Path) -> None:
        channels = {
            "train": (serving.RECORDIO, {"a.pbr": recordio.encode(csr_matrix(COUNTS))}),
            "test": ("text/csv;label_size=0", {"a.csv": csv.encode(HELD_OUT)}),
        }
        job = jobs.start(tmp_path / "ml", "lda", GIVEN, channels)
        code, log = job.wait()
        assert code == 0, log
        model = LDA.load(job.model_dir)
        assert cosine(model.components_) > 0.995
        found = re.search(LDA.metrics[0].regex, log)
        assert found
        assert float(found[1]) == pytest.approx(model.score(HELD_OUT), rel=1e-4)

    @pytest.mark.parametrize(
        ("content_type", "content", "message"),
        [
            ("text/csv;label_size=0", b"1,2,3\n1,2\n", "line 2 has 2 columns"),
            ("text/csv;label_size=0", b"1,2,3\n0,,4\n", "data, record 2: there are missing or infinite"),
            ("text/csv;label_size=0", b"1,2,3\n0,-1,4\n", "data, record 2: word 1 has the count -1"),
            (serving.CSV, b"1,2,3\n", "record 1: rows have 2 features, but feature_dim is 3"),
            (serving.RECORDIO, recordio.encode(np.ones((3, 3), np.float32))[:-5], "record 3 is cut short"),
            (serving.RECORDIO, b"", "there is no row in the channel 'train'"),
            ("image/png", b"x", "has the content type 'image/png'"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, content_type: str, content: bytes, message: str
    ) -> None:
        given = {"num_topics": "1", "feature_dim": "3", "mini_batch_size": "500"}
        job = jobs.start(tmp_path / "ml", "lda", given, {"train": (content_type, {"data": content})})
        assert job.wait()[0] == 1
        assert message in job.failure

    def test_several_instances_are_refused(self, tmp_path: Path) -> None:
        channels = {"train": (serving.CSV, {"data": b"0,1,2\n"})}
        job = jobs.start(tmp_path / "ml", "lda", GIVEN, channels, hosts=("algo-1", "algo-2"))
        assert job.wait()[0] == 1
        assert "LDA trains on one instance" in job.failure

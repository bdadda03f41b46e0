"""SageMaker Python SDK 2: the classes of the built-in algorithms, side by side.

Each is a name, an estimator, its records for training, the rows to ask about, and what the answers must be.
"""

import json

import numpy as np
import sagemaker
from sagemaker import KNN, PCA, FactorizationMachines, LinearLearner, RandomCutForest
from sklearn import decomposition
from sklearn.datasets import load_breast_cancer, load_digits

session = sagemaker.Session()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
digits, digit = load_digits(return_X_y=True)
cancer, malignant = load_breast_cancer(return_X_y=True)
digits, cancer = digits.astype("float32"), cancer.astype("float32")
digit, malignant = digit.astype("float32"), malignant.astype("float32")


def made(kind, instances=1, **more):
    return kind(
        role=role,
        instance_count=instances,
        instance_type="ml.m4.xlarge",
        output_path=f"s3://{session.default_bucket()}/sdk2-first-party/{kind.__name__}",
        sagemaker_session=session,
        **more,
    )


def values(records, name):
    return np.array([list(record.label[name].float32_tensor.values) for record in records])


def judge_linear_learner(records):
    assert np.mean(values(records, "predicted_label")[:, 0] == malignant[:200]) > 0.95
    scores = values(records, "score")[:, 0]
    assert scores.min() >= 0
    assert scores.max() <= 1


def judge_knn(records):
    assert np.mean(values(records, "predicted_label")[:, 0] == digit[:200]) > 0.98


def judge_pca(records):
    bare = decomposition.PCA(3).fit(digits).transform(digits[:200])[:, ::-1]
    np.testing.assert_allclose(np.abs(values(records, "projection")), np.abs(bare), rtol=0.02, atol=0.1)


def judge_factorization_machines(records):
    assert np.mean(values(records, "predicted_label")[:, 0] == malignant[:200]) > 0.9
    scores = values(records, "score")[:, 0]
    assert scores.min() >= 0
    assert scores.max() <= 1


def judge_random_cut_forest(records):
    scores = values(records, "score")[:, 0]
    assert 0.5 < np.median(scores) < 1.5, np.median(scores)
    assert scores[7] > 1.5 * np.median(scores)


linear = made(LinearLearner, 2, predictor_type="binary_classifier", epochs=10, num_models=4, loss="logistic")
knn = made(KNN, k=3, sample_size=2000, predictor_type="classifier", index_type="faiss.IVFFlat")
pca = made(PCA, 2, num_components=3)
machines = made(
    FactorizationMachines,
    2,
    num_factors=4,
    predictor_type="binary_classifier",
    epochs=40,
    linear_lr=0.05,
    factors_lr=0.01,
)
forest = made(RandomCutForest, 2, num_samples_per_tree=100, num_trees=60, eval_metrics=["accuracy"])
unlike = digits.copy()
unlike[7] = 16 - unlike[7]
scaled = (cancer - cancer.mean(axis=0)) / cancer.std(axis=0)
cases = [
    (machines, machines.record_set(scaled, malignant), 100, scaled, judge_factorization_machines),
    (forest, forest.record_set(digits), 1000, unlike, judge_random_cut_forest),
    (linear, linear.record_set(cancer, malignant), 200, cancer, judge_linear_learner),
    (knn, knn.record_set(digits, digit), 500, digits, judge_knn),
    (pca, pca.record_set(digits), 500, digits, judge_pca),
]

for estimator, records, batch_size, _, _ in cases:
    estimator.fit(records, mini_batch_size=batch_size, wait=False)
for estimator, *_ in cases:
    session.sagemaker_client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=estimator.latest_training_job.name, WaiterConfig={"Delay": 2, "MaxAttempts": 200}
    )
predictors = [
    estimator.deploy(initial_instance_count=1, instance_type="ml.m4.xlarge", wait=False)
    for estimator, *_ in cases
]
for predictor, (_, _, _, rows, judge) in zip(predictors, cases, strict=True):
    session.sagemaker_client.get_waiter("endpoint_in_service").wait(
        EndpointName=predictor.endpoint_name, WaiterConfig={"Delay": 2, "MaxAttempts": 200}
    )
    judge(predictor.predict(rows[:200]))
    predictor.delete_endpoint()
print(json.dumps({"ok": True, "classes": [type(estimator).__name__ for estimator, *_ in cases]}))

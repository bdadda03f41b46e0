"""SageMaker Python SDK 2: LDA and IP Insights by their classes, BlazingText by Estimator, side by side."""

import json

import numpy as np
import sagemaker
from sagemaker import LDA, IPInsights
from sagemaker.amazon.amazon_estimator import RecordSet
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.serializers import JSONSerializer

session = sagemaker.Session()
bucket = session.default_bucket()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
rng = np.random.default_rng(0)
common = {
    "role": role,
    "instance_count": 1,
    "instance_type": "ml.m4.xlarge",
    "output_path": f"s3://{bucket}/sdk2-text/output",
    "sagemaker_session": session,
}

topics = rng.dirichlet(np.full(50, 0.1), 3)
which = rng.integers(0, 3, 300)
counts = np.stack([rng.multinomial(80, topics[topic]) for topic in which]).astype("float32")
lda = LDA(num_topics=3, alpha0=0.3, **common)
lda.fit(lda.record_set(counts), mini_batch_size=300, wait=False)

users = rng.integers(0, 50, 3000)
logins = [f"user{user},10.{user}.{rng.integers(0, 4)}.{rng.integers(0, 256)}" for user in users]
session.upload_string_as_file_body("\n".join(logins), bucket, "sdk2-text/logins/a.csv")
insights = IPInsights(num_entity_vectors=100, vector_dim=16, learning_rate=0.01, **common)
records = RecordSet(f"s3://{bucket}/sdk2-text/logins/", len(logins), 2, s3_data_type="S3Prefix")
insights.fit(records, mini_batch_size=100, wait=False)

lines = [f"__label__{kind} {' '.join(rng.choice(words, 6))}" for _ in range(300)
         for kind, words in (("animal", ["cat", "dog", "cow"]), ("number", ["one", "two", "ten"]))]  # fmt: skip
session.upload_string_as_file_body("\n".join(lines), bucket, "sdk2-text/lines/a.txt")
blazing = Estimator(
    sagemaker.image_uris.retrieve("blazingtext", session.boto_region_name),
    hyperparameters={"mode": "supervised", "vector_dim": 10, "buckets": 1000, "learning_rate": 0.5},
    **common,
)
blazing.fit(
    {"train": TrainingInput(f"s3://{bucket}/sdk2-text/lines/", content_type="text/plain")}, wait=False
)

estimators = [lda, insights, blazing]
for estimator in estimators:
    session.sagemaker_client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=estimator.latest_training_job.name, WaiterConfig={"Delay": 2, "MaxAttempts": 200}
    )
more = {"serializer": JSONSerializer(), "deserializer": JSONDeserializer()}
predictors = [
    estimator.deploy(1, "ml.m4.xlarge", wait=False, **(more if estimator is blazing else {}))
    for estimator in estimators
]
for predictor in predictors:
    session.sagemaker_client.get_waiter("endpoint_in_service").wait(
        EndpointName=predictor.endpoint_name, WaiterConfig={"Delay": 2, "MaxAttempts": 200}
    )
mixtures, scores, labels = (
    predictors[0].predict(counts[:100]),
    predictors[1].predict([["user3", "10.3.1.7"], ["user3", "10.9.1.7"]]),
    predictors[2].predict({"instances": ["a cat", "one ten"], "configuration": {"k": 1}}),
)
found = np.array([list(record.label["topic_mixture"].float32_tensor.values) for record in mixtures])
groups = [np.bincount(found.argmax(axis=1)[which[:100] == topic]).max() for topic in range(3)]
assert sum(groups) > 95, groups
usual, unusual = (one["dot_product"] for one in scores["predictions"])
assert usual > unusual, (usual, unusual)
assert [one["label"] for one in labels] == [["__label__animal"], ["__label__number"]], labels
for predictor in predictors:
    predictor.delete_endpoint()
print(json.dumps({"ok": True, "scores": [usual, unusual]}))

"""SageMaker Python SDK 2: the built-in k-means with `record_set`."""

import json

import numpy as np
import sagemaker
from sagemaker import KMeans
from sklearn.cluster import KMeans as BareKMeans
from sklearn.datasets import load_iris

session = sagemaker.Session()
bucket = session.default_bucket()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"

data = load_iris()
train = data.data.astype("float32")

kmeans = KMeans(
    role=role,
    instance_count=1,
    instance_type="ml.m4.xlarge",
    output_path=f"s3://{bucket}/sdk2-kmeans/output",
    k=3,
    sagemaker_session=session,
)
kmeans.fit(kmeans.record_set(train), logs=True)

predictor = kmeans.deploy(initial_instance_count=1, instance_type="ml.m4.xlarge")
records = predictor.predict(train)
predictor.delete_endpoint()

clusters = np.array([r.label["closest_cluster"].float32_tensor.values[0] for r in records], dtype=int)
distances = np.array([r.label["distance_to_cluster"].float32_tensor.values[0] for r in records])
assert set(clusters) == {0, 1, 2}, set(clusters)
pure = sum(np.bincount(data.target[clusters == cluster]).max() for cluster in range(3)) / len(clusters)
inertia = float((distances**2).sum())
bare = BareKMeans(n_clusters=3, n_init=10, random_state=0).fit(train).inertia_
assert pure >= 0.85, pure
assert inertia <= 1.05 * bare, (inertia, bare)
print(json.dumps({"ok": True, "purity": pure, "inertia": inertia, "bare_inertia": float(bare)}))

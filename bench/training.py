"""Training jobs from CreateTrainingJob to Completed, against the bare library as a plain Python script.

Both sides read the same rows, and everything counts: starting Python, importing the library, loading the data,
training, saving the model; on Sagesmith's side also the API, staging and uploading. Wall times are taken here.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.environments import ROOT
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running

__all__ = ["run"]

Floats = npt.NDArray[np.float32]
PEERS = ROOT / "bench" / "peers"
CLUSTERS = 100
ROUNDS = 100
FIRST_LINE = "import time\nprint('first line at', time.time(), flush=True)\n"
BUCKET = "bench-training"
ACCOUNT = "683313688378.dkr.ecr.us-east-1.amazonaws.com"
KMEANS_ACCOUNT = "382416733822.dkr.ecr.us-east-1.amazonaws.com"


def higgs_like(n_rows: int) -> Floats:
    """Return a label and 28 features per row, with interactions, as PERFORMANCE B.1 generates them."""
    rng = np.random.default_rng(42)
    x = rng.standard_normal((n_rows, 28), dtype=np.float32)
    x[:, 20:] = np.exp(0.5 * x[:, 20:])
    margin = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.5 * x[:, 3] ** 2 - 0.5
    margin += 0.7 * (x[:, 4] > 0.3) * x[:, 5] + 0.4 * x[:, 20] - 0.4 * x[:, 21] + 0.3 * x[:, 6]
    label = (rng.random(n_rows) < 1 / (1 + np.exp(-margin))).astype(np.float32)
    return np.column_stack((label, x)).astype(np.float32)


def overlapping_gaussians(n_rows: int) -> Floats:
    """Return rows of 50 features around 100 centers, as PERFORMANCE B.4 generates them."""
    rng = np.random.default_rng(11)
    centers = rng.standard_normal((CLUSTERS, 50)).astype(np.float32) * np.float32(1.2)
    noise = rng.standard_normal((n_rows, 50), dtype=np.float32)
    return (centers[rng.integers(0, CLUSTERS, n_rows)] + noise).astype(np.float32)


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows; *seconds* has no meaning here, jobs take what they take."""
    n_rows = 20_000 if quick else 500_000
    with tempfile.TemporaryDirectory() as name, new_home() as home:
        bench = Training(Path(name), n_rows)
        with running(home) as server:
            bench.upload(server)
            return [
                *bench.starts(server, rounds),
                *bench.xgboost(server, rounds),
                *bench.kmeans(server, rounds),
            ]


class Training:
    """The data, here and in S3, and one method for each comparison."""

    def __init__(self, folder: Path, n_rows: int) -> None:
        import pandas as pd

        progress(f"  generating {n_rows:,} rows")
        self.folder = folder
        self.n_rows = n_rows
        pd.DataFrame(higgs_like(n_rows)).to_csv(
            folder / "train.csv", header=False, index=False, float_format="%.6g"
        )
        self.points = overlapping_gaussians(n_rows)
        np.save(folder / "points.npy", self.points)
        (folder / "train.py").write_text(FIRST_LINE)
        self._count = 0

    def upload(self, server: Sagesmith) -> None:
        """Put the data into S3."""
        from sagesmith_algorithms.formats import recordio

        progress("  uploading the data")
        s3 = server.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.upload_file(str(self.folder / "train.csv"), BUCKET, "higgs/train.csv")
        s3.put_object(Bucket=BUCKET, Key="tiny/train.csv", Body=b"0,1,2\n1,3,4\n" * 50)
        s3.upload_file(str(self.folder / "train.py"), BUCKET, "code/train.py")
        (self.folder / "points.pbr").write_bytes(recordio.encode(self.points))
        s3.upload_file(str(self.folder / "points.pbr"), BUCKET, "points/points.pbr")

    # ---- comparisons -----------------------------------------------------------------------------------

    def starts(self, server: Sagesmith, rounds: int) -> list[Row]:
        """CreateTrainingJob to the first line of code, against `python train.py`."""

        def user_code() -> dict[str, float]:
            job = self._job(
                server, f"{ACCOUNT}/sagemaker-xgboost:1.7-1", "code", "text/plain", {},
                ContainerEntrypoint=["python", "/opt/ml/input/data/train/train.py"],
            )  # fmt: skip
            said = next(
                text for _, text in self._log(server, job["name"]) if text.startswith("first line at")
            )
            return {"s": float(said.split()[-1]) - job["created"]}

        def built_in() -> dict[str, float]:
            job = self._job(
                server, f"{ACCOUNT}/sagemaker-xgboost:1.7-1", "tiny", "text/csv",
                {"num_round": "1", "objective": "binary:logistic"},
            )  # fmt: skip
            return {"s": self._log(server, job["name"])[0][0] - job["created"]}

        def python() -> dict[str, float]:
            began = time.time()
            said = subprocess.run(
                [sys.executable, self.folder / "train.py"], capture_output=True, text=True, check=True
            ).stdout
            return {"s": float(said.split()[-1]) - began}

        found = interleave(
            max(rounds, 5), {"user code": user_code, "built-in": built_in, "python train.py": python}
        )
        bare = found["python train.py"]["s"]
        rows = []
        for title, limit in (("user code", 0.1), ("built-in", 0.3)):
            ours = found[title]["s"]
            more = ours.median - bare.median
            rows.append(
                Row(
                    "training", f"CreateTrainingJob to first line, {title}", ours.text("ms", 1e3),
                    "python train.py", bare.text("ms", 1e3), ours.median / bare.median,
                    f"<= {limit} s more", more <= limit, f"{more * 1e3:.0f} ms more",
                )
            )  # fmt: skip
        return rows

    def xgboost(self, server: Sagesmith, rounds: int) -> list[Row]:
        """An XGBoost job, against the library."""
        parameters = {
            "num_round": str(ROUNDS), "objective": "binary:logistic", "eval_metric": "logloss", "max_depth": "6",
            "eta": "0.3", "tree_method": "hist", "seed": "0",
        }  # fmt: skip

        def ours() -> dict[str, float]:
            job = self._job(server, f"{ACCOUNT}/sagemaker-xgboost:1.7-1", "higgs", "text/csv", parameters)
            metrics = {m["MetricName"]: m["Value"] for m in job["described"].get("FinalMetricDataList", ())}
            return {"s": job["took"], "logloss": metrics.get("train:logloss", float("nan"))}

        def bare() -> dict[str, float]:
            began = time.perf_counter()
            said = self._script("bare_xgboost.py", "train.csv", "model.ubj", str(ROUNDS))
            return {"s": time.perf_counter() - began, "logloss": float(said.split()[-1])}

        found = interleave(rounds, {"job": ours, "xgboost": bare})
        what = f"XGBoost, {self.n_rows:,} x 28 CSV, {ROUNDS} rounds"
        return [
            _compared(what, found["job"]["s"], "bare xgboost", found["xgboost"]["s"], 1.05),
            _compared(
                "  its log loss",
                found["job"]["logloss"],
                "bare xgboost",
                found["xgboost"]["logloss"],
                unit="",
            ),
        ]

    def kmeans(self, server: Sagesmith, rounds: int) -> list[Row]:
        """A k-means job, against scikit-learn's two."""

        def ours() -> dict[str, float]:
            job = self._job(
                server, f"{KMEANS_ACCOUNT}/kmeans:1", "points", "application/x-recordio-protobuf",
                {"k": str(CLUSTERS), "feature_dim": "50"},
            )  # fmt: skip
            return {"s": job["took"], "inertia": self._inertia(self._centers(server, job["described"]))}

        def sklearn(kind: str) -> dict[str, float]:
            began = time.perf_counter()
            self._script("bare_sklearn.py", kind, str(CLUSTERS), "points.npy", "centers.npy")
            took = time.perf_counter() - began
            return {"s": took, "inertia": self._inertia(np.load(self.folder / "centers.npy"))}

        peers = ("KMeans", "MiniBatchKMeans")
        contenders: dict[str, Callable[[], Mapping[str, float]]] = {
            "job": ours,
            **{kind: partial(sklearn, kind) for kind in peers},
        }
        found = interleave(rounds, contenders)
        what = f"k-means, {self.n_rows:,} x 50, k = {CLUSTERS}"
        rows = []
        for kind in peers:
            against = f"scikit-learn {kind}"
            rows.append(_compared(what, found["job"]["s"], against, found[kind]["s"], 1.05))
            inertia = (found["job"]["inertia"], found[kind]["inertia"])
            rows.append(_compared("  its inertia per row", inertia[0], against, inertia[1], unit=""))
        return rows

    # ---- one job ---------------------------------------------------------------------------------------

    def _job(
        self, server: Sagesmith, image: str, prefix: str, content_type: str, parameters: Mapping[str, str],
        **specification: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a training job; return its name, when it was created, how long it took, and its description.

        Raises:
            RuntimeError: it did not complete.
        """
        sagemaker = server.client("sagemaker")
        self._count += 1
        name = f"bench-{self._count}"
        source = {
            "S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}/", "S3DataDistributionType": "FullyReplicated",
        }  # fmt: skip
        channel = {
            "ChannelName": "train",
            "ContentType": content_type,
            "DataSource": {"S3DataSource": source},
        }
        sagemaker.list_training_jobs(MaxResults=1)  # the connection is not part of the figure
        created = time.time()
        sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
            AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File", **specification},
            HyperParameters=dict(parameters),
            InputDataConfig=[channel],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/models"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": 3600},
        )
        while True:
            described = sagemaker.describe_training_job(TrainingJobName=name)
            if described["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
                break
            time.sleep(0.02)
        took = time.time() - created
        if described["TrainingJobStatus"] != "Completed":
            raise RuntimeError(f"{name}: {described['TrainingJobStatus']}: {described.get('FailureReason')}")
        time.sleep(0.5)  # the next warm instance gets ready
        return {"name": name, "created": created, "took": took, "described": described}

    def _log(self, server: Sagesmith, job: str) -> list[tuple[float, str]]:
        """Return (seconds since 1970, text) of the job's log lines, the oldest first."""
        logs = server.client("logs")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            events = logs.filter_log_events(
                logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/"
            )["events"]
            if events:
                return [(event["timestamp"] / 1e3, event["message"]) for event in events]
            time.sleep(0.1)
        raise RuntimeError(f"{job} has logged nothing")

    def _centers(self, server: Sagesmith, described: Mapping[str, Any]) -> Floats:
        bucket, _, key = described["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
        archive = server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile(next(m for m in tar.getmembers() if "model_algo-1" in m.name))
            assert member is not None
            raw = member.read()
        return np.frombuffer(raw, np.float32, CLUSTERS * 50, offset=64).reshape(CLUSTERS, 50)

    def _inertia(self, centers: Floats) -> float:
        """Return the mean squared distance of the points to their nearest of *centers*."""
        total = 0.0
        for start in range(0, len(self.points), 50_000):
            part = self.points[start : start + 50_000].astype(np.float64)
            distances = (
                (part**2).sum(1)[:, None] - 2 * part @ centers.T + (centers.astype(np.float64) ** 2).sum(1)
            )
            total += float(distances.min(1).sum())
        return total / len(self.points)

    def _script(self, name: str, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, PEERS / name, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def _compared(
    what: str, ours: Series, against: str, theirs: Series, limit: float | None = None, unit: str = "s"
) -> Row:
    ratio = ours.median / theirs.median
    target = f"<= {limit} x" if limit else ""
    met = ratio <= limit if limit else None
    return Row("training", what, ours.text(unit), against, theirs.text(unit), ratio, target, met)

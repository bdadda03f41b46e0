"""Batch transform of one large CSV object, against the bare library as a plain Python script.

Both sides read the same rows and write the same scores; everything counts: starting Python, importing the library,
loading the model, reading, predicting, writing; on Sagesmith's side also the API and S3.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.environments import ROOT
from bench.report import Row, interleave, progress
from bench.server import Sagesmith, new_home, running
from bench.training import ACCOUNT, higgs_like

__all__ = ["run"]

PEER = ROOT / "bench" / "peers" / "bare_transform.py"
BUCKET = "bench-transform"
IMAGE = f"{ACCOUNT}/sagemaker-xgboost:1.7-1"
LIMIT = 1.3
BLOCK = 20_000
"""The rows repeat after so many: writing a million different ones takes longer than what is measured."""


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the row; *seconds* has no meaning here, jobs take what they take."""
    n_rows = 20_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name, new_home() as home:
        bench = Transform(Path(name), n_rows)
        with running(home) as server:
            bench.upload(server)
            return bench.compare(server, rounds)


class Transform:
    """The rows and the model, here and in S3."""

    def __init__(self, folder: Path, n_rows: int) -> None:
        import pandas as pd
        import xgboost

        progress(f"  generating {n_rows:,} rows and a model")
        self.folder, self.n_rows = folder, n_rows
        table = higgs_like(BLOCK)
        text = pd.DataFrame(table[:, 1:]).to_csv(header=False, index=False, float_format="%.6g").encode()
        with (folder / "rows.csv").open("wb") as file:
            file.writelines(text for _ in range(n_rows // BLOCK))
        matrix = xgboost.DMatrix(table[:, 1:], table[:, 0])
        booster = xgboost.train({"objective": "binary:logistic", "max_depth": 6}, matrix, 100)
        booster.save_model(folder / "xgboost-model.json")
        with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
            archive.add(folder / "xgboost-model.json", "xgboost-model")
        self._count = 0

    def upload(self, server: Sagesmith) -> None:
        """Put rows and model into S3, and make the model."""
        s3 = server.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for name in ("rows.csv", "model.tar.gz"):
            s3.upload_file(str(self.folder / name), BUCKET, name)
        server.client("sagemaker").create_model(
            ModelName="bench",
            ExecutionRoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
        )

    def compare(self, server: Sagesmith, rounds: int) -> list[Row]:
        """Run job and script in turn."""

        def job() -> dict[str, float]:
            took = self._job(server)
            found = server.client("s3").get_object(Bucket=BUCKET, Key=f"out-{self._count}/rows.csv.out")
            self._scores = np.loadtxt(io.BytesIO(found["Body"].read()), np.float32)
            time.sleep(1.0)  # the next warm instance gets ready
            return {"s": took}

        def script() -> dict[str, float]:
            began = time.perf_counter()
            command = [sys.executable, PEER, "xgboost-model.json", "rows.csv", "scores.csv"]
            subprocess.run(command, cwd=self.folder, check=True)
            return {"s": time.perf_counter() - began}

        contenders: dict[str, Callable[[], Mapping[str, float]]] = {"job": job, "script": script}
        found = interleave(rounds, contenders)
        expected = np.loadtxt(self.folder / "scores.csv", np.float32)
        np.testing.assert_allclose(self._scores, expected, rtol=1e-4, atol=1e-6)
        ours, theirs = found["job"]["s"], found["script"]["s"]
        ratio = ours.median / theirs.median
        what = f"XGBoost, {self.n_rows:,} x 28 as CSV, CreateTransformJob to Completed"
        against = "read_csv, predict, to_csv"
        return [
            Row("transform", what, ours.text("s"), against, theirs.text("s"), ratio, f"<= {LIMIT} x", ratio <= LIMIT)
        ]  # fmt: skip

    def _job(self, server: Sagesmith) -> float:
        sagemaker: Any = server.client("sagemaker")
        self._count += 1
        name = f"bench-{self._count}"
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/rows.csv"}
        sagemaker.list_transform_jobs(MaxResults=1)  # the connection is not part of the figure
        began = time.perf_counter()
        sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName="bench",
            TransformInput={
                "DataSource": {"S3DataSource": source},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out-{self._count}", "AssembleWith": "Line"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )
        while True:
            described = sagemaker.describe_transform_job(TransformJobName=name)
            if described["TransformJobStatus"] in ("Completed", "Failed", "Stopped"):
                break
            time.sleep(0.02)
        if described["TransformJobStatus"] != "Completed":
            raise RuntimeError(f"{name}: {described['TransformJobStatus']}: {described.get('FailureReason')}")
        return time.perf_counter() - began

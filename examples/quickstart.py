"""The main job from end to end: train XGBoost, deploy it behind HTTPS, predict, clean up.

Everything between the two marked lines is plain boto3, as it would run against AWS. The rest starts a
Sagesmith server in a folder of its own (`.quickstart/`) and ends it again.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

CONSOLE = Console()
ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".quickstart" / "home"
SAGESMITH = Path(sys.executable).with_name("sagesmith")
TIMINGS: list[tuple[str, float, str]] = []


@contextlib.contextmanager
def stage(name: str) -> Iterator[list[str]]:
    """Show that *name* is going on, then how long it took; what is appended to the list is shown beside it."""
    notes: list[str] = []
    began = time.perf_counter()
    with CONSOLE.status(f"{name} ..."):
        yield notes
    took = time.perf_counter() - began
    TIMINGS.append((name, took, " ".join(notes)))
    CONSOLE.print(f"[green]✓[/] {name:<34} {took:8.2f} s  [dim]{' '.join(notes)}[/]")


def main() -> None:
    """Run the quickstart and print what was measured."""
    CONSOLE.print(
        "[bold]Sagesmith quickstart[/]: train, deploy and predict with plain boto3, on this machine.\n"
    )
    with stage("Start the server") as notes:
        subprocess.run(
            [SAGESMITH, "up", "--home", HOME, "--port", "0", "--detach"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        notes.append(f"home {HOME.relative_to(ROOT)}")
    try:
        lines = subprocess.run(
            [SAGESMITH, "env", "--home", HOME], check=True, capture_output=True, text=True
        ).stdout
        os.environ.update(
            line.removeprefix("export ").replace("'", "").split("=", 1)
            for line in lines.splitlines()
            if line.startswith("export ")
        )
        train_deploy_predict()
    finally:
        with stage("Stop the server"):
            subprocess.run([SAGESMITH, "down", "--home", HOME], check=True, stderr=subprocess.DEVNULL)
    show()


# ---- from here on: plain boto3 -------------------------------------------------------------------------


def train_deploy_predict() -> None:
    """Train XGBoost on scikit-learn's breast-cancer data, deploy it, predict the held-out rows, delete all."""
    import boto3
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    features, labels = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        features, labels, test_size=0.25, random_state=7, stratify=labels
    )
    region = os.environ["AWS_REGION"]
    account = boto3.client("sts").get_caller_identity()["Account"]
    role = f"arn:aws:iam::{account}:role/SagesmithExecutionRole"
    image = f"683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-xgboost:1.7-1"
    bucket, name = f"quickstart-{account}", f"quickstart-{int(time.time() * 1000)}"
    s3, sagemaker, runtime = boto3.client("s3"), boto3.client("sagemaker"), boto3.client("sagemaker-runtime")

    with stage("Upload the data to S3") as notes:
        s3.create_bucket(Bucket=bucket)
        rows = "\n".join(
            ",".join(map(str, [label, *row])) for row, label in zip(train_x, train_y, strict=True)
        )
        s3.put_object(Bucket=bucket, Key="train/train.csv", Body=rows.encode())
        notes.append(f"{len(train_x)} rows, {train_x.shape[1]} features")

    with stage("Train XGBoost (100 rounds)") as notes:
        sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=role,
            AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
            HyperParameters={
                "objective": "binary:logistic",
                "num_round": "100",
                "max_depth": "4",
                "eta": "0.2",
            },
            InputDataConfig=[
                {
                    "ChannelName": "train",
                    "ContentType": "text/csv",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": f"s3://{bucket}/train/",
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
            ],
            OutputDataConfig={"S3OutputPath": f"s3://{bucket}/models"},
            ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )
        # The waiter of boto3 asks every two minutes unless told otherwise.
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 3000}
        )
        job = sagemaker.describe_training_job(TrainingJobName=name)
        metrics = {m["MetricName"]: m["Value"] for m in job.get("FinalMetricDataList", [])}
        notes.append(f"{job['TrainingJobStatus']}, logloss {metrics.get('train:logloss', float('nan')):.4f}")

    with stage("Deploy behind HTTPS + Signature V4") as notes:
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            PrimaryContainer={"Image": image, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]},
        )
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": name,
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                }
            ],
        )
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1200}
        )
        notes.append(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])

    with stage(f"Predict {len(test_x)} rows, one by one") as notes:
        answers, latencies = [], []
        for row in test_x:
            began = time.perf_counter()
            answer = runtime.invoke_endpoint(
                EndpointName=name, ContentType="text/csv", Body=",".join(map(str, row))
            )
            answers.append(float(answer["Body"].read()))
            latencies.append(time.perf_counter() - began)
        accuracy = float(np.mean((np.array(answers) > 0.5) == test_y))
        notes.append(f"accuracy {accuracy:.3f}, median {statistics.median(latencies) * 1000:.2f} ms in boto3")
    if accuracy < 0.9:
        raise SystemExit(f"accuracy {accuracy:.3f} is below what this data gives: something is wrong")

    with stage("Delete endpoint, model and data"):
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)
        boto3.resource("s3").Bucket(bucket).objects.delete()
        s3.delete_bucket(Bucket=bucket)
        sagemaker.get_waiter("endpoint_deleted").wait(
            EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
        )


# ---- end of plain boto3 --------------------------------------------------------------------------------


def show() -> None:
    """Print the timings as bars, and where to go next."""
    table = Table(title="Where the time went", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("")
    longest = max(took for _, took, _ in TIMINGS)
    for name, took, _ in TIMINGS:
        table.add_row(name, f"{took:.2f}", "[cyan]" + "█" * max(1, round(40 * took / longest)) + "[/]")
    CONSOLE.print()
    CONSOLE.print(table)
    CONSOLE.print(
        "\n[bold]Where to go next[/]\n"
        "  .venv/bin/sagesmith up --detach             a server of your own (home ~/.sagesmith)\n"
        "  .venv/bin/sagesmith run -- python x.py      any SageMaker code, unchanged\n"
        '  eval "$(.venv/bin/sagesmith env)"           point this shell\'s boto3 and AWS CLI at it\n'
        "  docs/                                       what it does, and how"
    )


if __name__ == "__main__":
    main()

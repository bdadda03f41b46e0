"""Reading RecordIO-protobuf: 1,000,000 sparse records, against the SDK's own reader."""

from __future__ import annotations

from pathlib import Path

from bench.algorithms.reading import entry, rows


def write(folder: Path, quick: bool) -> None:
    from scipy.sparse import csr_matrix

    from sagesmith_algorithms.formats import recordio

    table = rows(quick, density=0.5)
    features, labels = csr_matrix(table[:, 1:]), table[:, 0]
    (folder / "data").write_bytes(recordio.encode(features, labels))
    for name, n in (("part", len(labels) // 20), ("tiny", 100)):
        (folder / name).write_bytes(recordio.encode(features[:n], labels[:n]))


def sagemaker(path: Path) -> int:
    from sagemaker.amazon.common import read_records

    with path.open("rb") as file:
        return len(read_records(file))


ENTRY = entry(
    "reading sparse RecordIO", "application/x-recordio-protobuf", write, {"the SageMaker SDK": sagemaker},
    environment="sdk2", least_share=0.05,
)  # fmt: skip

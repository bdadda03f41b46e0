"""Reading LibSVM: 1,000,000 rows of 28 features, half of them 0."""

from __future__ import annotations

from pathlib import Path

from bench.algorithms.reading import entry, rows


def write(folder: Path, quick: bool) -> None:
    table = rows(quick, density=0.5)
    for name, part in (("data", table), ("tiny", table[:100])):
        with (folder / name).open("w") as file:
            for row in part.tolist():
                pairs = " ".join(f"{i}:{value:.6g}" for i, value in enumerate(row[1:]) if value)
                file.write(f"{row[0]:g} {pairs}\n")


def scikit_learn(path: Path) -> int:
    from sklearn.datasets import load_svmlight_file

    return int(load_svmlight_file(str(path))[0].shape[0])


def xgboost(path: Path) -> int:
    import xgboost as xgb

    return int(xgb.DMatrix(f"{path}?format=libsvm", nthread=2).num_row())


ENTRY = entry("reading LibSVM", "text/libsvm", write, {"scikit-learn": scikit_learn, "xgboost": xgboost})

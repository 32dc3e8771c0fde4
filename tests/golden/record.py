"""Record what the cases give today: ``python tests/golden/record.py [CASE …]`` with ``tests`` on PYTHONPATH.

Only where results are meant to change; say in the commit which and why.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import cases

import texts


def make_bases() -> None:
    """Train the two networks that all cases start from."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cases.write_data(folder)
        fresh = texts.tiny_text_model(folder / "fresh", classes=3)
        common = "--threads 1 --batch-size 16"
        for name, words in {
            "digits": f"--model coprune:resnet20 --width 4 --data npz:{folder}/digits.npz --epochs 3 "
            "--lr 0.05",
            "encoder": f"--model hf:{fresh} --data tsv:{folder}/reviews.tsv --epochs 6 --lr 3e-3 "
            "--optimizer adamw --schedule linear",
        }.items():
            cases.type_command(f"train {words} {common} --out {cases.BASES / name}".split())
            # The weights count; how and where they were made would differ each time.
            for trace in ("job.json", "log.jsonl"):
                (cases.BASES / name / trace).unlink()


def main() -> None:
    """Run the cases and write the recording."""
    torch.set_num_threads(1)
    if not cases.BASES.is_dir():
        make_bases()
    wanted = sys.argv[1:] or list(cases.CASES)
    before = json.loads(cases.RECORDING.read_text())["cases"] if cases.RECORDING.is_file() else {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cases.write_data(folder)
        for case in wanted:
            out = folder / case
            cases.type_command(cases.words_of(case, data=folder, out=out))
            before[case] = cases.summary(out)
    recording = {
        "torch": torch.__version__,
        "rounding": cases.rounding(),
        "cases": before,
    }
    cases.RECORDING.write_text(json.dumps(recording, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

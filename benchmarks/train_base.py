"""Train the networks that benchmarks need and the package does not bundle.

python benchmarks/train_base.py resnet56 --out benchmarks/bases/resnet56
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

OPTIONS = {
    "resnet56": ["--model", "coprune:resnet56", "--epochs", "3"],
    "vgg16_bn": ["--model", "coprune:vgg16_bn", "--width", "16", "--epochs", "8"],
    # Narrow, so that two cores train and prune them in hours: half, a quarter and a third of the papers'.
    "resnet56_w8": ["--model", "coprune:resnet56", "--width", "8", "--epochs", "8", "--precision", "bf16"],
    "mobilenet_v2_w8": ["--model", "coprune:mobilenet_v2", "--width", "8", "--epochs", "8"],
    "densenet40_w4": [
        "--model",
        "coprune:densenet40",
        "--width",
        "4",
        "--epochs",
        "5",
        "--precision",
        "bf16",
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(OPTIONS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    command = [str(Path(sys.executable).with_name("coprune")), "train", *OPTIONS[args.name]]
    return subprocess.call([*command, "--data", "fashion-mnist", "--out", str(args.out), "--resume"])


if __name__ == "__main__":
    sys.exit(main())

"""Commands whose results may not change: kept units, weights and figures, recorded once.

Two trained networks of a few kilobytes lie beside this file, so that no training stands between a change
and what it did: ``bases/digits`` (ResNet-20 of width 4) and ``bases/encoder`` (BERT of two layers).
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import texts
from digits import write_digits

HERE = Path(__file__).parent
BASES = HERE / "bases"
RECORDING = HERE / "recording.json"

_PRUNE = "prune --model {bases}/digits --data npz:{data}/digits.npz --calibration 60 --latency-batches 1"
_TEXT = "prune --model {bases}/encoder --data tsv:{data}/reviews.tsv --calibration 100 --latency-batches 1"

CASES: dict[str, str] = {
    "cosep": f"{_PRUNE} --method cosep",
    "cosep-layerwise": f"{_PRUNE} --method cosep --schedule layerwise --between-epochs 1",
    "complementary": f"{_PRUNE} --keep-macs 0.5",
    "complementary-finetuned": f"{_PRUNE} --keep-macs 0.4 --finetune-epochs 2 --finetune-lr 0.01",
    "complementary-coupled": f"{_PRUNE} --keep-macs 0.4 --units inner,coupled",
    "complementary-max-drop": f"{_PRUNE} --max-drop 20",
    "complementary-knee": _PRUNE,
    "channel-least-squares": f"{_PRUNE} --keep-macs 0.5 --recovery channel-least-squares",
    "reconstruction": f"{_PRUNE} --keep-macs 0.3 --recovery reconstruction",
    "cahp": f"{_TEXT} --method cahp --keep-heads 0.5",
    "heads-and-neurons": f"{_TEXT} --keep-macs 0.5",
    "compare": "compare --model {bases}/digits --data npz:{data}/digits.npz --calibration 60 "
    "--methods complementary,cosep,magnitude,random --keep-macs 0.5 --seeds 1",
    "demo": "demo",
}
"""Name → what is typed, but for where to write and the threads."""

TRAINED = ("cosep-layerwise", "complementary-finetuned", "reconstruction")
"""Cases in which gradients are followed, which lets the rounding of other kernels grow."""

AT_A_KNEE = ("cosep", "cosep-layerwise")
"""Cases whose choice hangs on how a machine rounds: two processors with the same instructions differ."""

SLOW = ("demo",)
"""Cases that need a minute."""


def write_data(folder: Path) -> None:
    """The data that the cases name."""
    write_digits(folder / "digits.npz")
    texts.tiny_tsv(folder / "reviews.tsv", rows=600, classes=3)


def words_of(case: str, *, data: Path, out: Path) -> list[str]:
    """The command line of a case."""
    common = ["--out", str(out), "--threads", "1"]
    return [word.format(bases=BASES, data=data) for word in CASES[case].split()] + common


def summary(run: Path) -> dict[str, Any]:
    """What must stay the same of a finished run: kept units, digests of weights, figures."""
    if (run / "compare.json").is_file():
        rows = json.loads((run / "compare.json").read_text())["rows"]
        names = ("method", "budget", "seed", "kept", "macs_ratio", "pruned", "recovered")
        return {"rows": [{name: row[name] for name in names} for row in rows]}
    plan, result = (json.loads((run / f"{name}.json").read_text()) for name in ("plan", "result"))
    weights = load_file(run / "model.safetensors")
    return {
        "kept": {group["name"]: group["kept"] for group in plan["groups"]},
        "weights": {name: digest(tensor) for name, tensor in weights.items()},
        "stages": [
            {name: stage[name] for name in ("name", "value", "macs", "params")} for stage in result["stages"]
        ],
    }


def digest(tensor: torch.Tensor) -> list[float]:
    """Three numbers of a tensor: its norm, its sum, and its product with a wave along its entries."""
    flat = tensor.double().flatten()
    wave = torch.cos(torch.arange(len(flat), dtype=torch.float64) * math.sqrt(2))
    return [float(flat.norm()), float(flat.sum()), float(flat @ wave)]


def differences(found: Any, recorded: Any, *, tolerance: float, place: str = "") -> list[str]:
    """Where two summaries differ; fractions may by a tolerance, relative to their own or to one."""
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        return [
            line
            for key in recorded.keys() | found.keys()
            for line in differences(
                found.get(key), recorded.get(key), tolerance=tolerance, place=f"{place}/{key}"
            )
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [
            line
            for index, pair in enumerate(zip(found, recorded, strict=True))
            for line in differences(*pair, tolerance=tolerance, place=f"{place}/{index}")
        ]
    if isinstance(recorded, float) and isinstance(found, float):
        same = math.isclose(found, recorded, rel_tol=tolerance, abs_tol=tolerance)
    else:
        same = found == recorded
    return [] if same else [f"{place}: {recorded} was recorded, found {found}"]


def type_command(words: list[str]) -> None:
    """Run the command line in this process.

    Raises:
        RuntimeError: it did not end well.
    """
    from coprune.cli.main import main

    before, sys.argv = sys.argv, ["coprune", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"coprune {' '.join(words)} ended with {ended.code}") from ended
    finally:
        sys.argv = before


def rounding() -> str:
    """A digest of what this machine's kernels make of fixed numbers: whether it rounds as another does."""
    drawn, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    image, kernel = (torch.randn(size, generator=drawn) for size in ((8, 16, 12, 12), (24, 16, 3, 3)))
    torch.set_num_threads(1)
    try:
        maps = torch.nn.functional.conv2d(image, kernel, padding=1)
        rows = maps.flatten(2).transpose(1, 2).flatten(0, 1)
        gram = (rows.T @ rows).double()
        made = [
            maps,
            rows @ torch.randn(24, 40, generator=drawn),
            maps.softmax(1),
            torch.linalg.cholesky(gram),
        ]
    finally:
        torch.set_num_threads(threads)
    return hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in made)).hexdigest()[:16]

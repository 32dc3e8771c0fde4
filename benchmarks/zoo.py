"""Every classification model of torchvision and timm: is it pruned right, and if not, is it said why?

Random weights, the smallest image that the model takes, ``magnitude`` down to 70 % of the MACs, all kinds
of units. A model has *passed* when the cut one computes what the masked one does, gradients reach all of
its weights, and a fresh process loads it from its folder with equal outputs; it is *refused* when one line
says why; everything else has *failed*. Models that are done are not done again. The smallest of every
family come first, then the smallest of every set of types of modules (an architecture; models of one
differ in width, depth and image size), so that a sweep that is stopped has seen most of what there is.

python benchmarks/zoo.py --out benchmarks/results/zoo.json --one-of family
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import made_with
from coprune.budget.counts import Budget, least_counts
from coprune.budget.decide import decide
from coprune.data.dataset import DataSet, in_memory
from coprune.errors import UserError
from coprune.files import write_json
from coprune.measure import count_macs, count_params
from coprune.methods.registry import find_method
from coprune.models.canonicalize import canonicalize
from coprune.models.hubs import known_names
from coprune.models.names import ModelSource
from coprune.models.registry import build
from coprune.pipeline.context import Context
from coprune.pipeline.environment import versions
from coprune.pipeline.removable import KINDS, Scope
from coprune.recovery import reestimate_batchnorm
from coprune.skipped import SkipCode
from coprune.store import load, save_model
from coprune.store.tensors import read_tensors, write_tensors
from coprune.surgery import cut, masked
from coprune.tracing.forward import logits_of

LARGER = 224
"""Pixels a side where the smallest image leaves too little to remove."""

SIZES = (32, 64, 96, 128, 160, 224, 256)
KEEP = 0.7
LARGE = 150_000_000
"""Parameters from which on masked and cut are compared in float32, for memory."""

LARGEST = 700_000_000
"""More parameters than that do not fit into this benchmark's 24 GB, in double precision and twice."""

UNSOUND = (
    SkipCode.ONE_UNIT,
    SkipCode.NOT_FOLLOWED,
    SkipCode.NOT_CUT,
    SkipCode.CUT_FAILS,
    SkipCode.OUTPUT_SIZE,
    SkipCode.OTHERS_CHANGE,
    SkipCode.TOGETHER,
)
"""Why groups are left alone that a cut would not suit."""

LIBRARIES = ("torchvision", "timm")

KEPT = "outputs.safetensors"


def smallest(model: nn.Module) -> int:
    """Pixels a side of the smallest image that the model takes."""
    meant = getattr(model, "default_cfg", {}).get("input_size", SIZES[-1:])[-1]
    for size in (*SIZES, meant):
        try:
            with torch.no_grad():
                model(torch.zeros(1, 3, size, size))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return size
    raise UserError(f"takes no square image of {SIZES[0]} to {max(meant, SIZES[-1])} pixels")


def family_of(name: str) -> str:
    """The file of its library that a model comes from: ``torchvision/resnet``, ``timm/convnext``."""
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        return f"timm/{timm.model_entrypoint(model).__module__.rpartition('.')[2]}"
    import torchvision

    return f"torchvision/{torchvision.models.get_model_builder(model).__module__.rpartition('.')[2]}"


def looked_at(name: str) -> tuple[int, frozenset[str]]:
    """A model's parameters and the types of its modules.

    It is given memory only where it computes while it is built, as RegNet does.
    """
    try:
        with torch.device("meta"):
            model = build(ModelSource(name, {}))
    except UserError:
        model = build(ModelSource(name, {}))
    return count_params(model), frozenset(type(module).__name__ for module in model.modules())


def ordered(names: Sequence[str], *, one_of: str | None) -> list[str]:
    """The smallest of every family, then of every architecture, then (if all are wanted) the others."""
    known = {name: looked_at(name) for name in names}
    sized = sorted(names, key=lambda name: (known[name][0], name))
    stages: dict[str, Callable[[str], object]] = {
        "family": family_of,
        "architecture": lambda name: known[name][1],
    }
    found: dict[str, None] = {}
    for stage, kind in stages.items():
        seen = {kind(name) for name in found}
        for name in sized:
            if kind(name) not in seen:
                seen.add(kind(name))
                found[name] = None
        if stage == one_of:
            return list(found)
    return list(dict.fromkeys([*found, *sized]))


def samples(size: int, classes: int) -> DataSet:
    """A few random images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % 2
    source = in_memory([(torch.randn(8, 3, size, size, generator=generator), labels)])
    return DataSet("random", source, source, source, classes, (3, size, size), "random")


@torch.no_grad()
def wake(model: nn.Module, data: DataSet) -> None:
    """Statistics of batch norms from the images, and no matrix at 0: signals must not die away."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.normal_(0, 0.02, generator=generator)
    reestimate_batchnorm(model, data.calibration)


def difference(model: nn.Module, decisions: Any, images: Tensor) -> float:
    """Largest difference of masked and cut outputs, in proportion to how far outputs are apart."""
    dtype = torch.float32 if count_params(model) > LARGE else torch.float64
    twin, images = model.to(dtype), images.to(dtype)
    with torch.no_grad():
        with masked(twin, decisions):
            expected = logits_of(twin, images)
        found = logits_of(cut(twin, decisions), images)
    model.to(torch.float32)
    limit = 1e-3 if dtype == torch.float32 else 1e-9
    spread = float((expected - expected.mean(0)).abs().max())
    if spread <= 1e-6 * float(expected.abs().max()):
        raise ArithmeticError("its output hardly depends on its input, so that nothing can be compared")
    apart = float((found - expected).abs().max()) / spread
    if not apart <= limit:
        raise ArithmeticError(f"cut differs from masked by {apart:.2g} of the outputs' spread")
    return apart


def one(name: str, folder: Path) -> dict:
    """Prune one model and save it with an image and what the pruned model makes of it."""
    size, _ = looked_at(name)
    if size > LARGEST:
        raise UserError(f"not tried: {size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    model = canonicalize(build(ModelSource(name, {})))
    size = smallest(model)
    with torch.no_grad():
        made = logits_of(model, torch.zeros(1, 3, size, size))
    if made.ndim != 2:
        raise UserError(f"no classifier: of an image it makes {' × '.join(map(str, made.shape[1:]))} values")
    while True:
        data = samples(size, 1000)
        wake(model, data)
        context = Context.of(model, data, Scope(KINDS), device="cpu")
        if context.cost.ratio(least_counts(context.cost.sizes, 1)) <= KEEP or size >= LARGER:
            break
        # In a small image what cannot be removed, such as attention in windows, may cost most.
        size = LARGER
    method = find_method("magnitude")
    options = method.settings()
    choices = method.choose(context.statistics(method.needs(options)), options, 0)
    decisions = decide(Budget(keep_macs=KEEP), context.cost, choices)
    images, labels = next(iter(data.calibration.batches(2)))
    apart = difference(model, decisions, images)
    pruned = context.cut(decisions)
    figures = {
        "size": size,
        "macs": count_macs(pruned, context.example) / count_macs(model, context.example),
        "params": count_params(pruned) / count_params(model),
        "groups": {k: sum(g.kind == k for g in context.units.groups) for k in KINDS},
        "difference": apart,
        "left": sorted({s.reason for s in context.units.skipped if s.code in UNSOUND}),
    }
    del model
    with torch.no_grad():
        write_tensors(folder / KEPT, {"images": images, "outputs": pruned(images)})
    save_model(folder, pruned)
    loss = nn.functional.cross_entropy(logits_of(pruned.train(), images), labels)
    loss.backward()
    without = [n for n, p in pruned.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise ArithmeticError(f"no gradient reaches {without[0]}")
    return figures


def again(folder: Path) -> None:
    """Load a saved model and compare its outputs, bit for bit."""
    model = load(folder, trust=True)
    kept = read_tensors(folder / KEPT, what="outputs")
    with torch.no_grad():
        equal = torch.equal(model(kept["images"]), kept["outputs"])
    if not equal:
        raise ArithmeticError("the loaded model computes something else")


def tried(name: str, *, timeout: float) -> dict:
    """One entry of the results; pruning and loading have a process each."""
    started = time.monotonic()
    entry = {"model": name, "family": family_of(name)}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("one", "again"):
            words = [sys.executable, __file__, "--step", step, "--folder", folder, "--only", name]
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
            except subprocess.TimeoutExpired:
                return {**entry, "status": "failed", "reason": f"took more than {timeout:g} s"}
            said = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
            if done.returncode:
                status = "refused" if done.returncode == 2 else "failed"
                return {**entry, "status": status, "reason": said}
        figures = json.loads((Path(folder) / "figures.json").read_text())
    return {**entry, "status": "passed", **figures, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="models, such as timm:resnet18")
    parser.add_argument("--libraries", nargs="*", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument(
        "--one-of", choices=("family", "architecture"), help="only the smallest of every one; without it all"
    )
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("--again", action="store_true", help="do models again that have not passed")
    parser.add_argument("--step", choices=("one", "again"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "again":
        again(args.folder)
        return
    if args.step == "one":
        try:
            figures = one(args.only[0], args.folder)
        except UserError as cause:
            print(cause, file=sys.stderr)
            sys.exit(2)
        write_json(args.folder / "figures.json", figures)
        return
    if args.out is None:
        parser.error("--out is needed")
    names = args.only or ordered(
        [f"{scheme}:{name}" for scheme in args.libraries for name in known_names(scheme)],
        one_of=args.one_of,
    )
    before = json.loads(args.out.read_text()) if args.out.is_file() else {}
    found = before.get("models", [])
    done = {entry["model"]: entry for entry in found}
    for name in names:
        if name in done and not (args.again and done[name]["status"] != "passed"):
            continue
        done[name] = tried(name, timeout=args.timeout)
        print(name, done[name]["status"], done[name].get("reason", ""), flush=True)
        entries = [done[n] for n in sorted(done)]
        made = {**versions(), **{name: version(name) for name in LIBRARIES}}
        document = {"keep_macs": KEEP, "models": entries, "versions": made}
        made_with.write(args.out, document, since=before)


if __name__ == "__main__":
    main()

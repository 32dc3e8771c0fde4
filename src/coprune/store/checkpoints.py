"""Weights from a file of any usual kind, recognised by what is in it and not by its name.

Safetensors; what ``torch.save`` wrote, in either of its formats, read with ``weights_only=True``. The state
dict may lie in another dict (``{"state_dict": …}``, ``{"model": …, "optimizer": …}``), and its names may have
a prefix or parts that a wrapper added (``module.``, ``model.``, ``_orig_mod.``).
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coprune.errors import UserError
from coprune.models.copies import WRAPPED
from coprune.store.tensors import read_tensors
from coprune.tracing.forward import FAILURES

_DEPTH = 4
_LAST = ("ema", "teacher", "optim")
"""In a file with several state dicts those under such keys are the last that are meant."""

_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull fetches the file itself",
    b"\x89HDF": "an HDF5 file, of Keras",
    b"GGUF": "a GGUF file",
    b"{": "a JSON file; give the weights that it describes, or --model hf:DIR",
    b"<": "a page of HTML or XML; the download failed",
}


@dataclass(frozen=True)
class Found:
    """Tensors by name, and the key of the file that they lay under (empty: at the top)."""

    key: str
    tensors: dict[str, Tensor]


def read_checkpoint(path: Path) -> list[Found]:
    """All state dicts of a file, the likeliest first.

    Raises:
        UserError: missing, unreadable, damaged, of another kind, or with Python objects in it.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder; give the weights file in it, or the folder as --model")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: no regular file; copy the weights into one")
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as cause:
        raise UserError(f"{path}: no such weights file") from cause
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror})") from cause
    if not start:
        raise UserError(f"{path}: empty; make it again")
    if start[8:9] == b"{":
        return [Found("", read_tensors(path, what="weights file"))]
    for begins, kind in _OTHER_FILES.items():
        if start.startswith(begins):
            raise UserError(f"{path}: {kind}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise UserError(f"{path}: {_why_not(str(cause))}") from cause
    except (*FAILURES, EOFError, struct.error, OSError, MemoryError) as cause:
        raise UserError(
            f"{path}: damaged, or neither safetensors nor written by torch.save ({type(cause).__name__}); "
            "make it again"
        ) from cause
    found = sorted(_state_dicts(content, "", _DEPTH), key=lambda f: any(w in f.key.lower() for w in _LAST))
    if not found:
        raise UserError(f"{path}: holds no state dict (name → tensor); save model.state_dict()")
    return found


def _why_not(said: str) -> str:
    """Why ``weights_only`` refused a file, and the way out."""
    named = re.search(r"(?:GLOBAL|class|global) ([\w.]+\.[\w.]+)", said)
    if named is None:
        return "damaged, or neither safetensors nor written by torch.save; make it again"
    return (
        f"holds Python objects ({named[1]}), which are never loaded; if you trust it, open it with "
        "torch.load(…, weights_only=False) and save its state dict alone"
    )


def _state_dicts(content: object, key: str, depth: int) -> Iterator[Found]:
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, Tensor)}
    if tensors:
        yield Found(key, tensors)
    for name, value in content.items():
        yield from _state_dicts(value, f"{key}.{name}".lstrip("."), depth - 1)


def fitting(
    found: list[Found], expected: Mapping[str, Tensor], *, kind: str, where: str
) -> dict[str, Tensor]:
    """The tensors of a file under the names of a model.

    Args:
        found: what the file has.
        expected: the model's state dict.
        kind: the model's class.
        where: how a message names the file.

    Raises:
        UserError: names or shapes that differ, said with what was taken off; tensors without plain values.
    """
    renamed = [(*_renamed(one.tensors, expected), one.key) for one in found]
    # Of equals the first; what lies around the weights, such as a loss, has none of their names.
    tensors, off, key = max(renamed, key=lambda one: len(one[0].keys() & expected.keys()))
    for name in tensors.keys() & expected.keys():
        tensors[name] = _plain(name, tensors[name], expected[name], where=where)
    # Files from before PyTorch 0.4.1 do not count batches.
    tensors |= {n: t for n, t in expected.items() if n.endswith("num_batches_tracked") and n not in tensors}
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if off and not missing:
        # Beside the model lie parts of what it was trained in: a loss, metrics, an average.
        unexpected = set()
        tensors = {name: tensors[name] for name in expected}
    said = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    said[3:] = ["…"] * (len(said) > 3)
    for names, word in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            first = ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)
            said.append(f"{len(names)} {word} ({first})")
    if said:
        read = "".join([f", read from '{key}'"] * bool(key) + [f", {off}"] * bool(off))
        raise UserError(f"{where}: not weights of this {kind}{read}: {'; '.join(said)}")
    return tensors


def _renamed(given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Tensors under the expected names as far as can be, and what was done to their names, in words."""
    if given.keys() == expected.keys():
        return dict(given), ""
    given = _folded(given, expected)
    ours, theirs = {_bare(name): name for name in expected}, {_bare(name): t for name, t in given.items()}
    if len(ours) < len(expected) or len(theirs) < len(given):  # a wrapper's word is a layer's name here
        ours, theirs = {name: name for name in expected}, dict(given)
    off = [
        f"'{w}.' taken off" for w in WRAPPED if any(w in n.split(".") for n in given.keys() - expected.keys())
    ]
    best, how = theirs, ""
    around = [p for p in _prefixes(ours, theirs) if all(name.startswith(p) for name in ours)]
    tries = [
        *((prefix, "", f"'{prefix}' taken off") for prefix in _prefixes(theirs, ours)),
        *(("", prefix, f"'{prefix}' put before") for prefix in around),
    ]
    for prefix, before, words in tries:
        made = {before + n.removeprefix(prefix): t for n, t in theirs.items() if n.startswith(prefix)}
        if len(made.keys() & ours.keys()) > len(best.keys() & ours.keys()):
            best, how = made, words
    return {ours.get(n, n): t for n, t in best.items()}, ", ".join([*off, how] if how else off)


def _bare(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def _prefixes(longer: Mapping[str, object], shorter: Mapping[str, object]) -> list[str]:
    """What may stand before the names of the one, as those of the other are; told by a few of them."""
    ends = [n.removesuffix(s) for s in list(shorter)[:8] for n in longer if n.endswith(f".{s}")]
    return list(dict.fromkeys(ends))


def _folded(given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of ``torch.nn.utils.prune`` multiplied in, where the model has none."""
    made = dict(given)
    for name in given:
        plain = name.removesuffix("_orig")
        mask = given.get(f"{plain}_mask")
        if name.endswith("_orig") and mask is not None and name not in expected:
            made[plain] = made.pop(name) * made.pop(f"{plain}_mask")
    return made


def _plain(name: str, tensor: Tensor, expected: Tensor, *, where: str) -> Tensor:
    """A tensor with values that a layer can take.

    Raises:
        UserError: quantised, sparse, nested, without values, or integers for weights.
    """
    wrong = None
    if tensor.is_quantized:
        wrong = "is quantised; save the float weights"
    elif tensor.is_nested or tensor.layout is not torch.strided:
        wrong = "is sparse or nested; save it dense, with .to_dense()"
    elif tensor.is_meta:
        wrong = "is on the meta device and has no values; load weights before saving"
    elif expected.is_floating_point() and not tensor.is_floating_point():
        wrong = f"holds {str(tensor.dtype).removeprefix('torch.')} where weights are {expected.dtype}"
    if wrong:
        raise UserError(f"{where}: '{name}' {wrong}")
    return tensor.detach()

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
from pathlib import Path

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.files import check_regular, reading
from coprune.models.copies import WRAPPED
from coprune.store.state_dict import check_weights
from coprune.store.tensors import read_tensors
from coprune.tracing.forward import FAILURES

_DEPTH = 4
_LAST = ("ema", "teacher", "optim")
"""In a file with several state dicts those under such keys are the last that are meant."""

_DAMAGED = "damaged, or neither safetensors nor written by torch.save"

_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull fetches the file itself",
    b"\x89HDF": "an HDF5 file, of Keras",
    b"GGUF": "a GGUF file",
    b"{": "a JSON file; give the weights that it describes, or --model hf:DIR",
    b"<": "a page of HTML or XML; the download failed",
}


Found = dict[str, dict[str, Tensor]]
"""Of a file: the key that tensors lay under (empty: at the top) → their names → these."""


def read_checkpoint(path: Path) -> Found:
    """All state dicts of a file, the likeliest first.

    Raises:
        UserError: missing, unreadable, damaged, of another kind, or with Python objects in it.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; give the weights file in it, or the folder as --model")
    check_regular(path, what="weights file")
    with reading(path), path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise UserError(f"{path}: empty; make it again")
    if start[8:9] == b"{":
        return {"": read_tensors(path, what="weights file")}
    for begins, kind in _OTHER_FILES.items():
        if start.startswith(begins):
            raise UserError(f"{path}: {kind}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise UserError(f"{path}: {_why_not(str(cause))}") from cause
    except (*FAILURES, EOFError, struct.error, OSError, MemoryError) as cause:
        raise UserError(f"{path}: {_DAMAGED} ({type(cause).__name__}); make it again") from cause
    found = dict(_state_dicts(content, "", _DEPTH))
    if not found:
        raise UserError(f"{path}: holds no state dict (name → tensor); save model.state_dict()")
    return dict(sorted(found.items(), key=lambda one: any(word in one[0].lower() for word in _LAST)))


def _why_not(said: str) -> str:
    """Why ``weights_only`` refused a file, and the way out."""
    named = re.search(r"(?:GLOBAL|class|global) ([\w.]+\.[\w.]+)", said)
    if named is None:
        return f"{_DAMAGED}; make it again"
    return (
        f"holds Python objects ({named[1]}), which are never loaded; if you trust it, open it with "
        "torch.load(…, weights_only=False) and save its state dict alone"
    )


def _state_dicts(content: object, key: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, Tensor)}
    if tensors:
        yield key, tensors
    for name, value in content.items():
        yield from _state_dicts(value, f"{key}.{name}".lstrip("."), depth - 1)


def match_weights(found: Found, model: nn.Module, *, where: str) -> dict[str, Tensor]:
    """The tensors of a file under the names of a model.

    Args:
        found: what the file has.
        model: whose weights they should be.
        where: how a message names the file.

    Raises:
        UserError: names or shapes that differ, said with what was taken off; tensors without plain values.
    """
    due = model.state_dict()
    renamed = [(*_renamed(tensors, due), key) for key, tensors in found.items()]
    # Of equals the first; what lies around the weights, such as a loss, has none of their names.
    tensors, changed, key = max(renamed, key=lambda one: len(one[0].keys() & due.keys()))
    tensors = {n: _plain(n, t, where=where) if n in due else t for n, t in tensors.items()}
    # Files from before PyTorch 0.4.1 do not count batches.
    tensors |= {n: t for n, t in due.items() if n.endswith("num_batches_tracked") and n not in tensors}
    if changed and due.keys() <= tensors.keys():
        # Beside the model lie parts of what it was trained in: a loss, metrics, an average.
        tensors = {name: tensors[name] for name in due}
    origin = f", read from '{key}'" * bool(key) + f", {changed}" * bool(changed)
    check_weights(tensors, model, where=where, origin=origin)
    return tensors


def classes_in(found: Found, model: nn.Module) -> int | None:
    """How many classes the weights of a file have, where a model differs from them in nothing else.

    Args:
        found: what the file has.
        model: made for another number of classes.
    """
    due = model.state_dict()
    for given in found.values():
        tensors, _ = _renamed(given, due)
        shapes = [(tensors[n].shape, t.shape) for n, t in due.items() if n in tensors]
        # Of those that differ: the rows, and whether it is only their number.
        apart = {(theirs[:1], theirs[1:] == ours[1:]) for theirs, ours in shapes if theirs != ours}
        if len(apart) == 1 and all(rows and alike for rows, alike in apart):
            return int(apart.pop()[0][0])
    return None


def _renamed(given: dict[str, Tensor], due: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Tensors under the names that are due as far as can be, and what was done to their names, in words."""
    if given.keys() == due.keys():
        return given, ""
    given = _unmasked(given, due)
    ours, theirs = {_bare(name): name for name in due}, {_bare(name): t for name, t in given.items()}
    if len(ours) < len(due) or len(theirs) < len(given):  # a wrapper's word is a layer's name here
        ours, theirs = {name: name for name in due}, given
    strange = {part for name in given.keys() - due.keys() for part in name.split(".")}
    words = [f"'{word}.' taken off" for word in WRAPPED if word in strange]
    best, how = max(_prefixed(theirs, ours), key=lambda way: len(way[0].keys() & ours.keys()))
    return {ours.get(n, n): t for n, t in best.items()}, ", ".join([*words, how] if how else words)


def _bare(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def _prefixed(
    theirs: Mapping[str, Tensor], ours: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, Tensor], str]]:
    """Tensors as they are, with a prefix taken off their names, or put before; and that in words."""
    ways = [("", "", ""), *((p, "", f"'{p}' taken off") for p in _prefixes(theirs, ours))]
    common = (p for p in _prefixes(ours, theirs) if all(name.startswith(p) for name in ours))
    ways += [("", p, f"'{p}' put before") for p in common]
    for off, before, words in ways:
        inside = {n.removeprefix(off): t for n, t in theirs.items() if n.startswith(off)}
        yield {before + n: t for n, t in inside.items()}, words


def _prefixes(longer: Mapping[str, object], shorter: Mapping[str, object]) -> list[str]:
    """What may stand before the names of the one, as those of the other are; told by a few of them."""
    ends = [n.removesuffix(s) for s in list(shorter)[:8] for n in longer if n.endswith(f".{s}")]
    return list(dict.fromkeys(ends))


def _unmasked(given: dict[str, Tensor], due: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of ``torch.nn.utils.prune`` multiplied in, where the model has none."""
    made = dict(given)
    for name in given:
        plain = name.removesuffix("_orig")
        if name.endswith("_orig") and f"{plain}_mask" in given and name not in due:
            made[plain] = made.pop(name) * made.pop(f"{plain}_mask")
    return made


def _plain(name: str, tensor: Tensor, *, where: str) -> Tensor:
    """A tensor with values that a layer can take.

    Raises:
        UserError: quantised, sparse, nested, or without values.
    """
    wrong = ""
    if tensor.is_quantized:
        wrong = "is quantised; save the float weights"
    elif tensor.is_nested or tensor.layout is not torch.strided:
        wrong = "is sparse or nested; save it dense, with .to_dense()"
    elif tensor.is_meta:
        wrong = "is on the meta device and has no values; load weights before saving"
    if wrong:
        raise UserError(f"{where}: '{name}' {wrong}")
    return tensor.detach()

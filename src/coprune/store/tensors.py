"""Tensors on disk: safetensors, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from coprune.distributed.world import is_first
from coprune.errors import UserError
from coprune.files import check_regular, reading, write_bytes


def _serialised(tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None) -> bytes:
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        # Tied weights share memory, which safetensors refuses: each name gets its own copy, and the
        # model ties them again when it is built.
        address = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if address in seen else value
        seen.add(address)
    return tensor_bytes(plain, metadata=dict(metadata) if metadata else None)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> int:
    """Write tensors as safetensors, whole or not at all. Returns the file's size in bytes.

    Of the processes of a run only the first writes; the others need not even gather the bytes.
    """
    if not is_first():
        return 0
    content = _serialised(tensors, metadata=metadata)
    write_bytes(path, content)
    return len(content)


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (SafetensorError, ValueError) as cause:
            raise UserError(f"{path}: truncated or not safetensors ({cause}); make it again") from cause


def read_tensors(path: Path, *, what: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: missing, truncated or foreign.
    """
    read_header(path, what=what)  # before all bytes are
    with _opened(path):
        return load_tensors(path.read_bytes())


def read_header(path: Path, *, what: str) -> dict[str, Tensor]:
    """What is in a safetensors file, without its values: name → tensor on the meta device.

    Raises:
        UserError: missing, truncated, foreign, or of a type that no weights of PyTorch's layers have.
    """
    check_regular(path, what=what)
    with _opened(path), safe_open(path, framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        types = {name: _type(name, part) for name, part in parts.items()}
        return {n: torch.empty(p.get_shape(), dtype=types[n], device="meta") for n, p in parts.items()}


def _type(name: str, part: Any) -> torch.dtype:
    """The type of a tensor of a file, of which no value is read where it has an axis."""
    try:
        return (part[:0] if part.get_shape() else part[...]).dtype
    except (SafetensorError, ValueError, KeyError, TypeError) as cause:
        raise ValueError(f"{part.get_dtype()} of '{name}' is no type of weights") from cause


def tensor_file_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that :func:`write_tensors` would write."""
    return len(_serialised(tensors, metadata=None))

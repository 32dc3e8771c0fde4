"""Tensors on disk: safetensors, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from coprune.distributed.world import is_first
from coprune.errors import UserError
from coprune.files import check_regular, write_bytes


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


def read_tensors(path: Path, *, what: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: missing, truncated or foreign.
    """
    read_header(path, what=what)  # before all bytes are
    try:
        return load_tensors(path.read_bytes())
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror})") from cause
    except (SafetensorError, ValueError) as cause:
        raise UserError(f"{path}: truncated or not safetensors ({cause}); make it again") from cause


_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def read_header(path: Path, *, what: str) -> dict[str, Tensor]:
    """What is in a safetensors file, without its values: name → tensor on the meta device.

    Raises:
        UserError: missing, truncated, foreign, or of a type that no weights of PyTorch's layers have.
    """
    check_regular(path, what=what)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror or cause})") from cause
    except (SafetensorError, ValueError) as cause:
        raise UserError(f"{path}: truncated or not safetensors ({cause}); make it again") from cause
    foreign = next(
        (f"{dtype} of '{name}'" for name, (dtype, _) in found.items() if dtype not in _TYPES), None
    )
    if foreign:
        raise UserError(f"{path}: {foreign} is no type of weights; known: {', '.join(_TYPES)}")
    return {
        name: torch.empty(shape, dtype=_TYPES[dtype], device="meta") for name, (dtype, shape) in found.items()
    }


def tensor_file_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that :func:`write_tensors` would write."""
    return len(_serialised(tensors, metadata=None))

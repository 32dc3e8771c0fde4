"""Tensors on disk: safetensors, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from coprune.errors import UserError
from coprune.files import write_bytes
from coprune.ranks.who import is_first


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
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as cause:
        raise UserError(f"{path}: no such {what}") from cause
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror})") from cause
    except (SafetensorError, ValueError) as cause:
        raise UserError(f"{path}: truncated or not safetensors ({cause}); make it again") from cause


def tensor_file_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that :func:`write_tensors` would write."""
    return len(_serialised(tensors, metadata=None))

"""Gathered statistics on disk: another budget or method needs no new pass over the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import Tensor

from coprune.documents import Document
from coprune.errors import UserError, shown
from coprune.store.state_dict import type_of
from coprune.store.tensors import read_tensors, write_tensors

INDEX = "profile.json"


class _Index(Document):
    what = "profile"
    model: str
    data: str
    groups: dict[str, int]
    statistics: tuple[Annotated[str, Field(pattern=r"^[\w.-]+$")], ...]


def save_profile(
    folder: Path,
    statistics: Mapping[str, Mapping[str, Tensor]],
    *,
    model: str,
    data: str,
    groups: Mapping[str, int],
) -> None:
    """Write every statistic as one safetensors file, the index last.

    Args:
        folder: usually ``run/profile``.
        statistics: key → name → tensor.
        model: fingerprint of the weights they were gathered from.
        data: fingerprint of the samples.
        groups: those that were described, name → units.
    """
    for key, tensors in statistics.items():
        write_tensors(folder / f"{key}.safetensors", tensors)
    described = _Index(model=model, data=data, groups=dict(groups), statistics=tuple(sorted(statistics)))
    described.save(folder / INDEX)


def load_profile(
    folder: Path, *, model: str, data: str, groups: Mapping[str, int]
) -> dict[str, dict[str, Tensor]]:
    """Read the statistics of an earlier run.

    Args:
        folder, model, data: as for :func:`save_profile`.
        groups: those that will be asked about, name → units; the earlier run may have described more.

    Raises:
        UserError: missing, truncated, gathered from another model or other samples, or without some groups.
    """
    index = _Index.load(folder / INDEX)
    for what, has, wanted in (("model", index.model, model), ("data", index.data, data)):
        if has != wanted:
            found = f"another {what} ({shown(has)}, here {wanted})"
            raise UserError(f"{folder}: was gathered from {found}; leave --profile out to gather anew")
    unknown = [name for name, size in groups.items() if index.groups.get(name) != size]
    if unknown:
        raise UserError(
            f"{folder}: was gathered without {len(unknown)} of the {len(groups)} groups asked for "
            f"({unknown[0]}); give --only, --skip and --units as there, or leave --profile out to gather anew"
        )
    return {key: read_tensors(folder / f"{key}.safetensors", what="statistic") for key in index.statistics}


def check_profile(
    known: Mapping[str, Mapping[str, Tensor]], due: Mapping[str, Mapping[str, Tensor]], *, where: str
) -> None:
    """Refuse statistics that were not gathered, and kept, as they would be now.

    Args:
        known: key → name → tensor, as read; may describe more groups than are asked about.
        due: the same of a few samples: names, shapes and types are those of all samples.
        where: what the message begins with.

    Raises:
        UserError: names the first tensor that is missing, of another shape, or has NaN, Inf, or a negative
            count of samples or sum of squares.
    """
    for key, tensors in due.items():
        for name, wanted in tensors.items():
            found, cause = known[key].get(name), ""
            if found is None:
                cause = "is missing"
            elif found.shape != wanted.shape or found.dtype != wanted.dtype:
                cause = " for ".join(f"{type_of(t)} {list(t.shape)}" for t in (found, wanted))
            elif not bool(found.isfinite().all()):
                cause = "has NaN or Inf"
            elif name.endswith(("count", "/m2")):
                # Of a covariance those that are squares.
                squares = found.diagonal() if found.ndim == 2 else found
                if bool(squares.lt(0).any()):
                    cause = "has values below 0"
                elif name.endswith("/count") and not bool(found.sum() > 0):
                    cause = "is of no samples"
            if cause:
                raise UserError(
                    f"{where}: damaged profile: '{name}' of {key} {cause}; leave --profile out to gather anew"
                )

"""Gathered statistics on disk: another budget or method needs no new pass over the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from coprune.errors import UserError
from coprune.files import read_json, write_json
from coprune.store.tensors import read_tensors, write_tensors

INDEX = "profile.json"
SCHEMA = 1


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
    index = {
        "schema": SCHEMA,
        "model": model,
        "data": data,
        "groups": dict(groups),
        "statistics": sorted(statistics),
    }
    write_json(folder / INDEX, index)


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
    index = read_json(folder / INDEX, what="profile")
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        raise UserError(f"{folder / INDEX}: not a profile of coprune, schema {SCHEMA}")
    for what, wanted in (("model", model), ("data", data)):
        if index.get(what) != wanted:
            raise UserError(
                f"{folder}: was gathered from another {what} ({index.get(what)}, here {wanted}); "
                "leave --profile out to gather anew"
            )
    there = index.get("groups", {})
    unknown = [name for name, size in groups.items() if there.get(name) != size]
    if unknown:
        raise UserError(
            f"{folder}: was gathered without {len(unknown)} of the {len(groups)} groups asked for "
            f"({unknown[0]}); give --only, --skip and --units as there, or leave --profile out to gather anew"
        )
    return {key: read_tensors(folder / f"{key}.safetensors", what="statistic") for key in index["statistics"]}

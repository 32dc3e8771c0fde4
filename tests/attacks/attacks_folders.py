"""Rows of bad input: what a folder, a plan, a profile or a job file may do to who reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch
from attack import Attack, World
from safetensors.torch import load_file, save_file

from coprune.models.names import ModelSource
from coprune.models.registry import build
from coprune.store import save_model


def edited(path: str, change: Callable[[Any], object]) -> Callable[[World], None]:
    """Change a JSON document."""

    def make(world: World) -> None:
        file = world.folder / path
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return make


def raw(path: str, content: bytes) -> Callable[[World], None]:
    """Put other bytes in a file's place."""

    def make(world: World) -> None:
        (world.folder / path).unlink(missing_ok=True)
        (world.folder / path).write_bytes(content)

    return make


def pipe(path: str) -> Callable[[World], None]:
    """Put a pipe in a file's place, into which nobody writes."""

    def make(world: World) -> None:
        (world.folder / path).unlink(missing_ok=True)
        os.mkfifo(world.folder / path)

    return make


def device(path: str) -> Callable[[World], None]:
    """Put a device that never ends in a file's place."""

    def make(world: World) -> None:
        (world.folder / path).unlink(missing_ok=True)
        (world.folder / path).symlink_to("/dev/zero")

    return make


def tensors(path: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[World], None]:
    """Change a safetensors file."""

    def make(world: World) -> None:
        file = next(world.folder.glob(path))
        content = load_file(file)
        change(content)
        save_file({name: t.contiguous() for name, t in content.items()}, file)

    return make


def of_library(name: str, **arguments: object) -> Callable[[World], None]:
    """A folder ``other`` whose model.json asks a library for more than a shape."""

    def make(world: World) -> None:
        save_model(world.folder / "other", build(ModelSource(name, {"num_classes": 4})))
        edited("other/model.json", lambda d: d["source"]["arguments"].update(arguments))(world)

    return make


def bert(**config: object) -> Callable[[World], None]:
    """A folder ``text`` with a tiny classifier of texts, and some of its configuration replaced."""

    def make(world: World) -> None:
        from test_mutations import tiny_text

        save_model(world.folder / "text", tiny_text())
        edited("text/config.json", lambda d: d.update(config))(world)

    return make


def source(**arguments: object) -> Callable[[World], None]:
    return edited("run/model.json", lambda d: d["source"]["arguments"].update(arguments))


def layer(name: str, **sizes: object) -> Callable[[World], None]:
    return edited("run/model.json", lambda d: d["layers"].setdefault(name, {}).update(sizes))


def first_group(**changes: object) -> Callable[[World], None]:
    return edited("run/plan.json", lambda d: d["groups"][0].update(changes))


def profile_index(change: Callable[[Any], object]) -> Callable[[World], None]:
    return edited("run/profile/profile.json", change)


def statistic(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[World], None]:
    return tensors("run/profile/consumer*.safetensors", change)


def first(tensors: dict[str, torch.Tensor], end: str) -> str:
    """The first tensor whose name ends so."""
    return next(name for name in sorted(tensors) if name.endswith(end))


def short(tensors: dict[str, torch.Tensor]) -> None:
    name = first(tensors, "/mean")
    tensors[name] = tensors[name][:1]


def with_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors, "/mean")][0] = float("nan")


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    name = first(tensors, "/m2")
    tensors["other"] = tensors.pop(name)


def comparison(**row: object) -> Callable[[World], None]:
    content = {"method": "random", "budget": 0.5, "seed": 0, "macs_ratio": 0.5, "pruned": 0.5, **row}
    base = {"value": 0.9, "macs": 10, "params": 10}

    def make(world: World) -> None:
        (world.folder / "cmp").mkdir()
        written = {"schema": 1, "base": base, "rows": [content]}
        (world.folder / "cmp" / "compare.json").write_text(json.dumps(written))

    return make


def shared_channels(plan: dict[str, Any]) -> None:
    plan["groups"][1]["members"] = plan["groups"][0]["members"]
    plan["groups"][1]["size"], plan["groups"][1]["kept"] = plan["groups"][0]["size"], [0]


DEEP = b"[" * 100_000
FOLDERS, PLANS, PROFILES, DOCUMENTS = (
    "What a folder asks for",
    "Plans",
    "Profiles",
    "Files that are none, or never end",
)
ONLY_SHAPES = "only what shapes the network can be given, such as num_classes, img_size or depth"
TOO_LARGE = (
    "what it describes is far larger than what its weights can be of; restore model.json and config.json"
)
PRUNE = "coprune prune --model base --data npz:digits.npz --keep-macs 0.5 --out out --profile run/profile"
ANEW = "leave --profile out to gather anew"
APPLY = "coprune.apply_plan(net, coprune.Plan.load('run/plan.json'), torch.zeros(1, 1, 12, 12))"

ATTACKS: list[Attack] = [
    *(
        Attack(
            FOLDERS,
            "coprune.load('other')",
            f"model '{name}' takes no {argument} here; {ONLY_SHAPES}",
            makes=of_library(name, **{argument: value}),
            shown=f"coprune.load(…), model.json: {name} with {json.dumps({argument: value})}",
        )
        for name, argument, value in (
            ("timm:test_resnet", "checkpoint_path", "evil.pth"),
            ("timm:test_resnet", "pretrained", True),
            ("timm:test_resnet", "pretrained_cfg", {"file": "evil.pth"}),
            ("timm:test_resnet", "cache_dir", "/tmp"),
            ("pytorchcv:resnet10", "root", "/tmp/elsewhere"),
            ("torchvision:mobilenet_v3_small", "weights", "DEFAULT"),
        )
    ),
    Attack(
        FOLDERS,
        "coprune.load('other')",
        "model 'timm:test_resnet': act_layer = os.system is no size and no plain word",
        makes=of_library("timm:test_resnet", act_layer="os.system"),
        shown='coprune.load(…), model.json: timm:test_resnet with {"act_layer": "os.system"}',
    ),
    *(
        Attack(
            FOLDERS,
            "coprune.load('run')",
            said,
            makes=edited("run/model.json", lambda d, name=name: d["source"].update(name=name)),
            shown=f'coprune.load("run"), model.json: "name": "{name}"',
        )
        for name, said in (
            ("timm:test_resnet.hf-hub:x/y", "unknown model 'timm:test_resnet.hf-hub:x/y'; did you mean …?"),
            ("hf:someone/else", "run/model.json: does not say how its 🤗 model was built; restore the file"),
            (
                "python:os:system",
                "run: was built by python:os:system, and loading it runs that code; allow it with "
                "coprune.load(run, trust=True) or --trust, or give the model: coprune.load(run, model=...)",
            ),
        )
    ),
    *(
        Attack(
            FOLDERS,
            "coprune measure run --input-shape 1,12,12",
            f"coprune: run: {TOO_LARGE}",
            makes=source(**{name: value}),
            shown=f'coprune measure run, model.json: "{name}": {value}',
        )
        for name, value in (("width", 3000), ("num_classes", 10**9))
    ),
    *(
        Attack(
            FOLDERS,
            "coprune.load('run')",
            f"run: layer 'conv1' has no size {name} = {value}; restore model.json",
            makes=layer("conv1", **{name: value}),
            shown=f'coprune.load("run"), model.json, layers: "conv1": {{"{name}": {value}}}',
        )
        for name, value in (("stride", 2), ("weight", 1), ("__class__", 1), ("_modules", 1))
    ),
    *(
        Attack(
            FOLDERS,
            "coprune.load('run')",
            f"run: sizes of layer 'conv1' are not those of its weights (weight […] for {due})",
            makes=layer("conv1", **{name: value}),
            shown=f'coprune.load("run"), model.json, layers: "conv1": {{"{name}": {value}}}',
        )
        for name, value, due in (
            ("out_channels", 10**9, "[1000000000, 1, 3, 3]"),
            ("in_channels", 3, "[4, 3, 3, 3]"),
        )
    ),
    Attack(
        FOLDERS,
        "coprune.load('run')",
        "run/model.safetensors: 'conv1.weight' holds int32 for float32; save the weights as they are used",
        makes=tensors("run/model.safetensors", lambda t: t.update({"conv1.weight": t["conv1.weight"].int()})),
        shown='coprune.load("run"), whole numbers in model.safetensors',
    ),
    Attack(
        FOLDERS,
        "coprune.load('text')",
        f"text: {TOO_LARGE}",
        makes=bert(hidden_size=10**6),
        shown='coprune.load("text"), config.json: "hidden_size": 1000000',
    ),
    Attack(
        FOLDERS,
        "coprune.load('text')",
        "text/config.json: num_hidden_layers = 1000000000 is more than 10,000",
        makes=bert(num_hidden_layers=10**9),
        shown='coprune.load("text"), config.json: "num_hidden_layers": 1000000000',
    ),
    Attack(
        FOLDERS,
        "coprune.load('text')",
        f"model 'hf:text' takes no checkpoint_path here; {ONLY_SHAPES}",
        makes=bert(
            architectures=["TimmWrapperForImageClassification"],
            architecture="resnet18",
            model_args={"checkpoint_path": "evil.pth"},
        ),
        shown='coprune.load("text"), config.json: a TimmWrapper with "model_args": {"checkpoint_path": …}',
    ),
    *(
        Attack(
            PLANS,
            APPLY,
            f"run/plan.json: not a valid plan: {said}",
            makes=makes,
            shown=f"plan.json with {shown}",
        )
        for shown, makes, said in (
            (
                "a negative seed",
                edited("run/plan.json", lambda d: d.update(seed=-1)),
                "seed: Input should be greater than or equal to 0",
            ),
            (
                "a group that is there twice",
                edited("run/plan.json", lambda d: d["groups"].append({**d["groups"][0], "members": []})),
                "Value error, group … is there twice",
            ),
            (
                "two groups of the same channels",
                edited("run/plan.json", shared_channels),
                "Value error, groups … and … share channel 0 of …",
            ),
            (
                "nothing kept",
                first_group(kept=[]),
                "groups.0.kept: Tuple should have at least 1 item after validation, not 0",
            ),
            (
                "a kept unit beyond the last",
                first_group(kept=[0, 99]),
                "groups.0: Value error, group …: kept must be sorted, unique and below 4",
            ),
            (
                "a member out of range",
                edited("run/plan.json", lambda d: d["groups"][0]["members"][0].update(width=4, offset=2)),
                "groups.0: Value error, group …: … has no channel 5 of 4",
            ),
        )
    ),
    Attack(
        PLANS,
        APPLY,
        "plan for another model: layer '…' has 4 channels, the plan says 5",
        makes=first_group(size=5, clusters=[], score=[], position=[]),
        shown="plan.json with another size",
    ),
    Attack(
        PROFILES,
        PRUNE,
        "coprune: run/profile/profile.json: not a valid profile: statistics: Field required",
        makes=profile_index(lambda d: d.pop("statistics")),
        shown=f"{PRUNE}, without statistics",
    ),
    Attack(
        PROFILES,
        PRUNE,
        "coprune: run/profile/profile.json: not a valid profile: groups: Input should be a valid dictionary",
        makes=profile_index(lambda d: d.update(groups=[1])),
        shown=f"{PRUNE}, a list of groups",
    ),
    *(
        Attack(
            PROFILES,
            PRUNE,
            f"coprune: run/profile: damaged profile: '…' of consumer_covariance-24-8 {said}; {ANEW}",
            makes=statistic(change),
            shown=f"{PRUNE}, {shown}",
        )
        for shown, change, said in (
            ("one value a group", short, "float64 [1] for float64 […]"),
            ("NaN", with_nan, "has NaN or Inf"),
            ("a tensor renamed", renamed, "is missing"),
        )
    ),
    *(
        Attack(DOCUMENTS, given, said, makes=makes, shown=f"{given}, {shown}")
        for given, shown, makes, said in (
            (
                "coprune report run",
                "a pipe for plan.json",
                pipe("run/plan.json"),
                "coprune: run/plan.json: cannot be read (it is a pipe or a device, no plan); name a file",
            ),
            (
                "coprune measure run --input-shape 1,12,12",
                "a pipe for model.json",
                pipe("run/model.json"),
                "coprune: run/model.json: cannot be read (it is a pipe or a device, no model "
                "description); name a file",
            ),
            (
                "coprune measure run --input-shape 1,12,12",
                "/dev/zero for the weights",
                device("run/model.safetensors"),
                "coprune: run/model.safetensors: cannot be read (it is a pipe or a device, no weights "
                "file); name a file",
            ),
            (
                "coprune inspect run",
                "100,000 brackets",
                raw("run/plan.json", DEEP),
                "coprune: run/plan.json: truncated or not a plan of coprune (recursion limit exceeded …); "
                "make it again",
            ),
            (
                "coprune report run",
                "NaN in result.json",
                edited("run/result.json", lambda d: d["seconds"].update(measure=float("nan"))),
                "coprune: run/result.json: truncated or not a result of coprune (Out of range …); "
                "make it again",
            ),
            (
                "coprune report run",
                "10⁴⁰⁰ MACs",
                edited("run/result.json", lambda d: d["stages"][0].update(macs=10**400)),
                "coprune: run/result.json: not a valid result: stages.0.macs: Input should be less than …",
            ),
            (
                "coprune report cmp",
                "a ratio of 10³⁰",
                comparison(macs_ratio=1e30),
                "coprune: cmp/compare.json: not a valid comparison: rows.0.macs_ratio: Input should be less "
                "than …",
            ),
            (
                "coprune report run",
                "half of a character",
                raw("run/plan.json", b'{"schema": 1, "method": "\\ud800"}'),
                "coprune: run/plan.json: truncated or not a plan of coprune (unexpected end of hex "
                "escape …); "
                "make it again",
            ),
            (
                "coprune run job.toml",
                "100,000 brackets",
                raw("job.toml", b"a = " + DEEP),
                "coprune: job.toml: not TOML of a job (nested too deeply)",
            ),
            (
                "coprune run job.toml",
                "latin-1",
                raw("job.toml", "command = 'prüne'".encode("latin-1")),
                "coprune: job.toml: not a job file: not UTF-8 (byte 13)",
            ),
        )
    ),
]

"""Rows of bad input: output folders that are inputs, in use, or not ours."""

from __future__ import annotations

import json
import os
import shutil

from attack import Attack, World

from coprune.folders import lock


def foreign(world: World) -> None:
    (world.folder / "mine").mkdir()
    (world.folder / "mine" / "notes.txt").write_text("dear diary")


def with_a_result(world: World) -> None:
    foreign(world)
    (world.folder / "mine" / "result.json").write_text('{"marks": [1, 2]}')


def inside(world: World) -> None:
    """Inputs of all sorts in the run folder."""
    run = world.folder / "run"
    shutil.copytree("base", run / "inner")
    shutil.copy("digits.npz", run / "digits.npz")
    (run / "photos").mkdir()
    (run / "nets.py").write_text("")
    job = {"command": "prune", "model": "base", "data": "npz:digits.npz", "out": "run"}
    (run / "job.toml").write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in job.items()))


def linked(world: World) -> None:
    (world.folder / "link").symlink_to("run")
    (world.folder / "way").mkdir()
    (world.folder / "way" / "data").symlink_to("../run/inner")
    inside(world)


def borrowed(world: World) -> None:
    """The weights of the base are a link into the run, as in a hub's cache."""
    (world.folder / "base" / "model.safetensors").rename(world.folder / "run" / "blob")
    (world.folder / "base" / "model.safetensors").symlink_to("../run/blob")


def loop(world: World) -> None:
    (world.folder / "loop").symlink_to("loop")


def in_use(world: World) -> None:
    lock(world.folder / "run")  # until this process ends


def overwriting(world: World) -> None:
    """A run that is to take the place of the other one, by another process."""
    new = world.folder / ".run.coprune-new"
    (new / "work").mkdir(parents=True)
    (new / "job.json").write_text('{"prune": {}}')
    lock(new)


def broken_off(world: World) -> None:
    new = world.folder / ".run.coprune-new"
    (new / "work").mkdir(parents=True)
    (new / "job.json").write_text('{"prune": {"model": "other"}}')


def gone_into(world: World) -> None:
    os.chdir(world.folder / "run")


OUT = "Output folders"
INPUT = "Outputs that are inputs"
USED = "Folders in use"

PRUNE = "coprune prune --model base --data npz:digits.npz --keep-macs 0.5 --out"


def over_input(given: str, named: str, verb: str = "holds", *, out: str = "run", makes=inside) -> Attack:
    return Attack(
        INPUT,
        f"coprune {given} --out {out} --overwrite",
        f"coprune: {out}: {verb} an input ({named}); choose another --out",
        makes=makes,
    )


ATTACKS: list[Attack] = [
    over_input("prune --model run --data npz:digits.npz --keep-macs 0.0001", "--model run", "is"),
    over_input("prune --model run/inner --data npz:digits.npz", "--model run/inner"),
    over_input("prune --model base/../run --data npz:digits.npz", "--model base/../run", "is"),
    over_input(
        "prune --model python:run.nets:make --data npz:digits.npz", "--model python:run.nets:make", "is"
    ),
    over_input("prune --model hf:run/inner --data npz:digits.npz", "--model hf:run/inner"),
    over_input("prune --model base --data npz:digits.npz --profile run/profile", "--profile run/profile"),
    over_input("prune --model base --data npz:run/digits.npz", "--data npz:run/digits.npz"),
    over_input("prune --model base --data imagefolder:run/photos@32", "--data imagefolder:run/photos@32"),
    over_input("prune --model base --data tsv:run/nets.py --tokenizer base", "--data tsv:run/nets.py"),
    over_input("prune --model base --data npz:digits.npz --tokenizer run/inner", "--tokenizer run/inner"),
    over_input(
        "prune --model coprune:resnet20 --weights run/model.safetensors --data npz:digits.npz",
        "--weights run/model.safetensors",
    ),
    over_input("train --model run --data npz:digits.npz", "--model run", "is"),
    over_input("recover --model base --teacher run --data npz:digits.npz", "--teacher run", "is"),
    over_input(
        "recover --model base --teacher base --plan run/plan.json --data npz:digits.npz",
        "--plan run/plan.json",
    ),
    over_input(
        "compare --model run/inner --data npz:digits.npz --methods random --keep-macs 0.5",
        "--model run/inner",
    ),
    over_input("run run/job.toml", "the job file run/job.toml"),
    over_input("prune --model link --data npz:digits.npz", "--model link", "is", makes=linked),
    over_input("prune --model way/data --data npz:digits.npz", "--model way/data", makes=linked),
    over_input("prune --model run --data npz:digits.npz", "--model run", "is", out="link", makes=linked),
    over_input("prune --model base --data npz:digits.npz", "--model base", makes=borrowed),
    Attack(
        INPUT,
        "coprune prune --model run --data npz:digits.npz --out run",
        "coprune: run: is an input (--model run); choose another --out",
    ),
    Attack(
        INPUT,
        "coprune export run --onnx --out run/model.safetensors",
        "coprune: run/model.safetensors: is there, and no .onnx file; choose another --out",
    ),
    Attack(
        INPUT,
        "coprune export run --torch-export --out digits.npz",
        "coprune: digits.npz: is there, and no .pt2 file; choose another --out",
    ),
    Attack(
        OUT,
        "coprune export run --onnx --out base",
        "coprune: base: is a folder; name a file",
    ),
    Attack(
        OUT,
        "coprune export run --onnx --out /dev/null",
        "coprune: /dev/null: is no regular file; name a file",
    ),
    Attack(
        OUT,
        f"{PRUNE} mine --overwrite",
        "coprune: mine: is not a run folder, --overwrite leaves it alone; remove it yourself",
        makes=foreign,
    ),
    Attack(
        OUT,
        f"{PRUNE} mine --overwrite",
        "coprune: mine: is not a run folder, --overwrite leaves it alone; remove it yourself",
        makes=with_a_result,
        shown=f"{PRUNE} mine --overwrite   # mine/result.json is another program's",
    ),
    Attack(
        OUT,
        f"{PRUNE} mine --resume",
        "coprune: mine: holds no run to resume; use --overwrite or another --out",
        makes=foreign,
    ),
    Attack(OUT, f"{PRUNE} run", "coprune: run: exists already; use --resume, --overwrite or another --out"),
    Attack(OUT, f"{PRUNE} run --resume --overwrite", "coprune: give --resume or --overwrite, not both"),
    Attack(
        OUT,
        f"{PRUNE} run --resume --seed 7",
        "coprune: run: --resume with other options (…); ask for the same again",
    ),
    Attack(OUT, f"{PRUNE} digits.npz", "coprune: digits.npz: is a file; --out needs a folder"),
    Attack(
        OUT,
        f"{PRUNE} digits.npz/run",
        "coprune: digits.npz/run: cannot be made, …/digits.npz is a file; choose another --out",
    ),
    Attack(
        OUT,
        f"{PRUNE} /proc/run",
        "coprune: /proc/run: cannot be written (No such file or directory); mend that …",
    ),
    Attack(
        OUT,
        f"{PRUNE} loop",
        "coprune: loop: is a symbolic link to itself; choose another --out",
        makes=loop,
    ),
    Attack(
        OUT,
        f"{PRUNE} {'x' * 300}",
        "coprune: --out …: a name of 300 bytes; file systems take 255",
        shown=f"{PRUNE} xxx… (300 letters)",
    ),
    Attack(
        OUT,
        "coprune prune --model ../base --data npz:../digits.npz --out . --overwrite",
        "coprune: .: cannot be replaced, it is, or holds, the current folder; choose another --out",
        makes=gone_into,
    ),
    Attack(
        OUT,
        "coprune demo --out mine",
        "coprune: mine: is not a run folder, --overwrite leaves it alone; remove it yourself",
        makes=foreign,
    ),
    *(
        Attack(
            USED,
            f"{PRUNE} run{flag}",
            "coprune: run: in use, another run is writing there; wait until it has ended",
            makes=makes,
            shown=f"{PRUNE} run{flag}   # while another process {does}",
        )
        for makes, does in ((in_use, "writes it"), (overwriting, "overwrites it"))
        for flag in ("", " --resume", " --overwrite")
    ),
    *(
        Attack(
            USED,
            f"coprune {given}",
            "coprune: run: in use, another run is writing there; wait until it has ended",
            makes=in_use,
            shown=f"coprune {given}   # while another process writes it",
        )
        for given in ("measure run --input-shape 1,12,12", "report run", "export run --onnx")
    ),
    Attack(
        USED,
        f"{PRUNE} run --resume",
        "coprune: run: --resume with other options (…); ask for the same again",
        makes=broken_off,
        shown=f"{PRUNE} run --resume   # an --overwrite of it with other options was broken off",
    ),
]

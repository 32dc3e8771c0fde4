"""Rows of bad input: what was typed, on every subcommand and from Python."""

from __future__ import annotations

import json
import sys

from attack import Attack, World

NUMBERS = "Numbers that are none"
IDLE = "Options that cannot apply"
OWN = "A user's own code"
NAMES = "Names and lists"
TRAINING = "Training"

PRUNE = "coprune prune --model base --data npz:digits.npz --out x"
TRAIN = "coprune train --model coprune:resnet20 --data npz:digits.npz --out x"
COMPARE = "coprune compare --model base --data npz:digits.npz --out x"
RECOVER = "coprune recover --model run --teacher base --data npz:digits.npz --out x"


def nets(world: World) -> None:
    """Modules of a user's in the current folder, each wrong in its own way."""
    for name, text in {
        "typo": "def make(:\n",
        "early": "from torch import nn\n1 / 0\n",
        "lacking": "import nowhere_at_all\n",
        "ends": "import sys\n\ndef make():\n    sys.exit(3)\n",
        "own": (
            "from torch import nn\n\n"
            "class Odd(Exception):\n    pass\n\n"
            "def raises():\n    raise Odd('[bold] no\\nnetwork')\n\n"
            "def nothing():\n    return None\n\n"
            "class Net(nn.Sequential):\n"
            "    def __init__(self):\n"
            "        super().__init__(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),\n"
            "                         nn.Flatten(), nn.Linear(512, 4))\n\n"
            "class Moody(Net):\n"
            "    def forward(self, x):\n"
            "        if self.training:\n"
            "            raise Odd('not today')\n"
            "        return super().forward(x)\n"
        ),
    }.items():
        (world.folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)


def job(text: str):
    def write(world: World) -> None:
        (world.folder / "job.toml").write_text(text)

    return write


def bracketed(world: World) -> None:
    """A plan whose names look like markup and whose reason moves the cursor."""
    path = world.folder / "run" / "plan.json"
    plan = json.loads(path.read_text())
    plan["method"], plan["groups"][0]["name"], plan["groups"][0]["reason"] = "[/foo]", "[red]x", "\x1b[2J100%"
    path.write_text(json.dumps(plan))


def own(name: str, command: str = "prune") -> str:
    return f"coprune {command} --model python:{name} --data npz:digits.npz --out x"


ATTACKS: list[Attack] = [
    Attack(
        NUMBERS, f"{PRUNE} --keep-macs 50", "coprune: --keep-macs 50: a number in (0, 1]; did you mean 0.5?"
    ),
    Attack(
        NUMBERS, f"{PRUNE} --keep-macs 50%", "coprune: --keep-macs 50%: a number in (0, 1]; did you mean 0.5?"
    ),
    Attack(
        NUMBERS,
        f"{PRUNE} --keep-params 1e400",
        "coprune: --keep-params 1e400: a number in (0, 1]; did you mean 1?",
    ),
    Attack(NUMBERS, f"{PRUNE} --keep-units -0", "coprune: --keep-units -0: a number in (0, 1]"),
    Attack(NUMBERS, f"{PRUNE} --keep-heads half", "coprune: --keep-heads half: a number in (0, 1]"),
    Attack(
        NUMBERS, f"{PRUNE} --max-drop 101", "coprune: --max-drop 101: a number in [0, 100]; did you mean 100?"
    ),
    Attack(NUMBERS, f"{PRUNE} --latency-ms inf", "coprune: --latency-ms inf: a finite number above 0"),
    Attack(NUMBERS, f"{PRUNE} --finetune-lr inf", "coprune: --finetune-lr inf: a finite number above 0"),
    Attack(
        NUMBERS,
        f"{PRUNE} --finetune-epochs 1000000000000000000000000000000",
        "coprune: --finetune-epochs 1000000000000000000000000000000: a whole number from 0 to 100000; "
        "did you mean 100000?",
    ),
    Attack(NUMBERS, f"{PRUNE} --finetune-warmup nan", "coprune: --finetune-warmup nan: a number in [0, 1)"),
    Attack(
        NUMBERS,
        f"{PRUNE} --seed 18446744073709551616",
        "coprune: --seed 18446744073709551616: a whole number from 0 to 18446744073709551615; "
        "did you mean 18446744073709551615?",
    ),
    Attack(
        NUMBERS,
        f"{PRUNE} --calibration 1.5",
        "coprune: --calibration 1.5: a whole number from 2 to 1000000000; did you mean 2?",
    ),
    Attack(
        NUMBERS,
        f"{PRUNE} --round-to 1e9",
        "coprune: --round-to 1e9: a whole number from 1 to 65536; did you mean 65536?",
    ),
    Attack(NUMBERS, f"{PRUNE} --ridge -1", "coprune: --ridge -1: a finite number above 0"),
    Attack(
        NUMBERS,
        f"{PRUNE} --latency-batches 1,100000000",
        "coprune: --latency-batches 100000000: a whole number from 1 to 100000; did you mean 100000?",
    ),
    Attack(
        NUMBERS,
        f"{PRUNE} --width 1000000000",
        "coprune: --width 1000000000: a whole number from 1 to 65536; did you mean 65536?",
    ),
    Attack(
        NUMBERS,
        f"{TRAIN} --width 60000",
        "coprune: --width 60000 takes about … GB of memory, and … GB are free; give less",
    ),
    Attack(
        NUMBERS,
        f"{TRAIN} --num-classes 1000000000",
        "coprune: --num-classes 1000000000: a whole number from 1 to 1000000; did you mean 1000000?",
    ),
    Attack(NUMBERS, f"{TRAIN} --lr inf", "coprune: --lr inf: a finite number above 0"),
    Attack(
        NUMBERS,
        f"{TRAIN} --epochs 0",
        "coprune: --epochs 0: a whole number from 1 to 100000; did you mean 1?",
    ),
    Attack(
        NUMBERS,
        f"{TRAIN} --batch-size 100000000",
        "coprune: --batch-size 100000000: a whole number from 1 to 100000; did you mean 100000?",
    ),
    Attack(
        NUMBERS,
        f"{COMPARE} --keep-macs 0.5,25",
        "coprune: --keep-macs 25: a number in (0, 1]; did you mean 0.25?",
    ),
    Attack(
        NUMBERS, f"{COMPARE} --seeds 0", "coprune: --seeds 0: a whole number from 1 to 1000; did you mean 1?"
    ),
    Attack(NUMBERS, f"{COMPARE} --finetune-lr 0.1,-1", "coprune: --finetune-lr -1: a finite number above 0"),
    Attack(
        NUMBERS,
        f"{RECOVER} --calibration 0",
        "coprune: --calibration 0: a whole number from 2 to 1000000000; did you mean 2?",
    ),
    Attack(
        NUMBERS,
        "coprune demo --seed -1 --out x",
        "coprune: --seed -1: a whole number from 0 to 18446744073709551615; did you mean 0?",
    ),
    Attack(
        NUMBERS,
        "coprune measure run --input-shape 1,12,12 --threads 99999999999",
        "coprune: --threads 99999999999: a whole number from 1 to 1024; did you mean 1024?",
    ),
    Attack(
        NUMBERS,
        "coprune measure run --input-shape 1,999999,999999",
        "coprune: --input-shape 1,999999,999999 takes about 4,000.0 GB of memory, and … GB "
        "are free; give less",
    ),
    Attack(
        NUMBERS,
        "coprune measure run --input-shape 1,999,999 --latency-batches 100000",
        "coprune: --latency-batches 100000 takes about … GB of memory, and … GB are free; did you mean …?",
    ),
    Attack(
        NUMBERS,
        "coprune export run --onnx --input-shape 1,0,12",
        "coprune: --input-shape 0: a whole number from 1 to 1000000; did you mean 1?",
    ),
    Attack(
        NUMBERS,
        "coprune run job.toml",
        "coprune: --keep-macs inf: a number in (0, 1]; did you mean 1?",
        makes=job('command = "prune"\nmodel = "base"\ndata = "npz:digits.npz"\nout = "x"\nkeep-macs = inf\n'),
        shown="job.toml: keep-macs = inf",
    ),
    Attack(
        NUMBERS,
        "coprune.prune(net, train=batches, eval=test, keep_macs=50)",
        "keep_macs=50: a number in (0, 1]; did you mean 0.5?",
    ),
    Attack(
        NUMBERS,
        "coprune.prune(net, train=batches, eval=test, keep_macs=True)",
        "keep_macs=True: a number in (0, 1]",
    ),
    Attack(
        NUMBERS,
        "coprune.prune(net, train=batches, eval=test, keep_macs=0.5, finetune_epochs=1, "
        "finetune_lr=float('inf'))",
        "finetune_lr=inf: a finite number above 0",
    ),
    Attack(
        NUMBERS,
        "coprune.prune(net, train=batches, eval=test, keep_macs=0.5, seed=2**64)",
        "seed=18446744073709551616: a whole number from 0 to 18446744073709551615; "
        "did you mean 18446744073709551615?",
    ),
    Attack(
        IDLE,
        "coprune prune --model coprune:resnet20@fashion-mnist --data npz:digits.npz --out x --width 8",
        "coprune: --width 8: coprune:resnet20@fashion-mnist is a trained model and has its own; leave it out",
    ),
    Attack(
        IDLE,
        f"{PRUNE} --num-classes 7",
        "coprune: --num-classes 7: base is a trained model and has its own; leave it out",
    ),
    Attack(
        IDLE,
        f"{RECOVER} --width 4",
        "coprune: --width 4: run is a trained model and has its own; leave it out",
    ),
    Attack(
        IDLE,
        f"{PRUNE} --finetune-lr 0.1",
        "coprune: --finetune-lr 0.1 is of a training that was not asked for; it needs --finetune-epochs",
    ),
    Attack(
        IDLE,
        f"{PRUNE} --between-epochs 1",
        "coprune: --between-epochs 1 is of a training that was not asked for; it needs --schedule layerwise",
    ),
    Attack(
        IDLE,
        f"{COMPARE} --distill 0.5",
        "coprune: --distill 0.5 is of a training that was not asked for; it needs --finetune-epochs",
    ),
    Attack(
        IDLE,
        f"{TRAIN} --tokenizer base",
        "coprune: --tokenizer base is for texts, and npz:digits.npz holds images",
    ),
    Attack(
        IDLE,
        f"{PRUNE} --method cosep --ridge 0.1",
        "coprune: --ridge is no option of method 'cosep' but of complementary; it has --at, …",
    ),
    Attack(
        IDLE,
        "coprune.prune(net, train=batches, eval=test, keep_macs=0.5, finetune_lr=0.1)",
        "finetune_lr=0.1 is of a training that was not asked for; it needs finetune_epochs",
    ),
    Attack(
        IDLE,
        "coprune.prune(net, train=batches, eval=test, pruning_ratio=0.5)",
        "pruning_ratio: here it is keep_macs or keep_units",
    ),
    Attack(
        IDLE,
        "coprune.prune(net, train=batches, eval=test, keep_mac=0.5)",
        "keep_mac is no argument, nor an option of method 'complementary'; did you mean keep_macs, …?",
    ),
    Attack(
        TRAINING,
        f"{TRAIN} --num-classes 2",
        "coprune: label 3 is outside the model's 2 classes (0…1); give --num-classes or other data",
    ),
    Attack(
        TRAINING, f"{TRAIN} --optimizer adam", "coprune: --optimizer adam: Input should be 'sgd' or 'adamw'"
    ),
    Attack(
        TRAINING,
        f"{TRAIN} --precision fp16",
        "coprune: --precision fp16 needs a GPU; use bf16 or fp32 on a CPU",
    ),
    Attack(TRAINING, f"{TRAIN} --weights nothing.pt", "coprune: nothing.pt: no such weights file"),
    Attack(TRAINING, f"{TRAIN} --device tpu", "coprune: --device tpu: known are auto, cpu, cuda"),
    Attack(
        TRAINING,
        own("own:Moody", "train"),
        "coprune: in training mode the model does not take what it takes otherwise: "
        "Odd: not today (own.py, line 20)",
        makes=nets,
    ),
    Attack(
        TRAINING,
        own("own:Moody") + " --keep-macs 0.5 --finetune-epochs 1",
        "coprune: in training mode the model does not take what it takes otherwise: "
        "Odd: not today (own.py, line 20)",
        makes=nets,
    ),
    Attack(
        OWN,
        own("own:raises"),
        "coprune: model 'python:own:raises' fails in own.py, line 7: Odd: [bold] no network",
        makes=nets,
    ),
    Attack(
        OWN,
        own("ends:make"),
        "coprune: model 'python:ends:make' fails in ends.py, line 4: it ends the program (sys.exit(3))",
        makes=nets,
    ),
    Attack(OWN, own("sys:exit"), "coprune: model 'python:sys:exit' fails: it ends the program (sys.exit())"),
    Attack(
        OWN,
        own("typo:make", "train"),
        "coprune: model 'python:typo:make' fails in typo.py, line 1: SyntaxError: …",
        makes=nets,
    ),
    Attack(
        OWN,
        own("early:make"),
        "coprune: model 'python:early:make' fails in early.py, line 2: ZeroDivisionError: division by zero",
        makes=nets,
    ),
    Attack(
        OWN,
        own("lacking:make", "compare"),
        "coprune: model 'python:lacking:make' fails in lacking.py, line 1: "
        "ModuleNotFoundError: No module named 'nowhere_at_all'",
        makes=nets,
    ),
    Attack(
        OWN,
        own("own:nothing"),
        "coprune: model 'python:own:nothing' returned a NoneType, not a torch.nn.Module",
        makes=nets,
    ),
    Attack(
        OWN,
        own(".own:Net"),
        "coprune: model 'python:.own:Net': write python:package.module:factory",
        makes=nets,
    ),
    Attack(
        OWN,
        own("nets/own.py:Net"),
        "coprune: model 'python:nets/own.py:Net': write python:package.module:factory; "
        "did you mean python:own:Net, in that folder?",
    ),
    Attack(NAMES, f"{COMPARE} --recovery ''", "coprune: --recovery names none; known: …"),
    Attack(
        NAMES,
        "coprune measure run --input-shape 1,12,12 --engine ''",
        "coprune: --engine names none; known: torch, onnxruntime",
    ),
    Attack(
        NAMES,
        "coprune measure run --input-shape ,",
        "coprune: --input-shape ,: names or numbers separated by commas",
    ),
    Attack(
        NAMES,
        f"coprune inspect {'x' * 300}",
        "coprune: RUN …: a name of 300 bytes; file systems take 255",
        shown="coprune inspect xxx… (300 letters)",
    ),
    Attack(
        NAMES,
        "coprune run job.toml",
        r"coprune: --model a\x00b: no name has a NUL character in it",
        makes=job('command = "train"\nmodel = "a\\u0000b"\ndata = "npz:digits.npz"\nout = "x"\n'),
        shown=r'job.toml: model = "a\u0000b"',
    ),
    Attack(
        IDLE,
        "coprune measure run --data npz:digits.npz --input-shape 1,12,12",
        "coprune: give --data or --input-shape, not both",
    ),
    Attack(
        IDLE,
        f"{PRUNE} --method cosep --schedule layerwise --profile run/profile --keep-macs 0.5",
        "coprune: --profile run/profile is of the unpruned model; leave --schedule layerwise out",
    ),
    Attack(NAMES, "coprune prune --model '' --data npz:digits.npz --out x", "coprune: --model is empty"),
    Attack(
        NAMES,
        f"{COMPARE} --methods random --recovery bn,none,bn",
        "coprune: --recovery bn,none,bn names one twice",
    ),
    Attack(NAMES, f"{PRUNE} --skip ,", "coprune: --skip ,: names or numbers separated by commas"),
    Attack(
        NAMES,
        "coprune run job.toml",
        "coprune: job.toml: keep-macs = False is no option value",
        makes=job(
            'command = "prune"\nmodel = "base"\ndata = "npz:digits.npz"\nout = "x"\nkeep-macs = false\n'
        ),
        shown="job.toml: keep-macs = false",
    ),
    Attack(NAMES, "coprune report '[/x]'", "coprune: [/x]/plan.json: no such plan"),
    Attack(NAMES, r"coprune inspect $'a\nb'", "coprune: …no such plan"),
    Attack(
        NAMES,
        "coprune inspect run",
        "[/foo], keep_macs=0.5, …",
        makes=bracketed,
        notes=True,
        shown="coprune inspect run (a plan of a method [/foo])",
    ),
    Attack(
        NAMES,
        "coprune inspect run",
        r"[red]x … \x1b[2J100%",
        makes=bracketed,
        notes=True,
        shown="coprune inspect run (a reason that would clear the screen)",
    ),
]

"""Every kind of work: a network of it pruned by the default, and by others under the same conditions.

A task can be measured alone; what ``--out`` has of the others stays.

python benchmarks/tasks.py --out benchmarks/results/tasks.json
python benchmarks/tasks.py unet --seeds 1 --out benchmarks/results/tasks.json
python benchmarks/tasks.py unet --resume --out benchmarks/results/tasks.json    # goes on where it was
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import torch

import made_with
from coprune.files import write_json
from coprune.pipeline.environment import versions
from task_networks import frame

HERE = Path(__file__).resolve().parent / "task_networks"
NAMES = sorted(file.stem for file in HERE.glob("*.py") if file.stem not in ("__init__", "frame"))


def measured(name: str, args: argparse.Namespace) -> None:
    """Measure one, and write it among the others row by row."""
    case = importlib.import_module(f"task_networks.{name}").case(smoke=args.smoke, folder=args.bases / name)
    done: dict = {"made": case.made, "threads": torch.get_num_threads(), "rows": [], "versions": versions()}
    earlier = json.loads(args.out.read_text())["tasks"] if args.resume and args.out.is_file() else {}
    before = earlier.get(name)
    done["rows"] += before["rows"] if before else []
    for row in frame.rows(case, seeds=args.seeds, device=args.device, done=tuple(done["rows"])):
        done["rows"].append(row)
        print(json.dumps(row), flush=True)
        # Read again: another process may be measuring another task.
        known = json.loads(args.out.read_text())["tasks"] if args.out.is_file() else {}
        stamped = made_with.stamped(done, since=before)
        write_json(args.out, {"tasks": dict(sorted({**known, name: stamped}.items()))})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="the smallest of each, in seconds")
    parser.add_argument("--resume", action="store_true", help="rows that are there stay")
    parser.add_argument("--bases", type=Path, default=Path("benchmarks/bases/tasks"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(args.threads)
    for name in args.names or NAMES:
        try:
            measured(name, args)
        except SystemExit as missing:  # weights that nobody may hand on: of all, the others are measured
            if args.names:
                raise
            print(missing, flush=True)


if __name__ == "__main__":
    main()

"""Thousands of damaged documents, read by what reads them and handed to what uses them: done, or one line.

Nothing else may be raised, nothing may take long, and nothing may take much memory, whatever they ask for.
"""

from __future__ import annotations

import contextlib
import io
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutate import mutated, tensors_mutated, text_mutated

import coprune
from coprune.cli.inspect import inspect
from coprune.cli.run import arguments_of
from coprune.comparison import BaseFigures, Comparison, Row
from coprune.errors import UserError
from coprune.methods.registry import find_method, method_settings
from coprune.pipeline.context import Context
from coprune.pipeline.measure import note_latency, promise_note
from coprune.pipeline.run_folder import RunFolder, claim
from coprune.pipeline.search import Selection
from coprune.plan import Plan
from coprune.report import write, write_compare
from coprune.statistics import Profile
from coprune.store import save_model
from coprune.store.profile import check_profile, load_profile

SECONDS, GIGABYTE = 5.0, 1 << 30  # of the processor: a busy machine takes longer
EXAMPLE = torch.zeros(1, 1, 12, 12)

Case = tuple[str, Callable[[bytes, random.Random], bytes], Callable[[Path], Any]]
"""A file of the folder, how it is damaged, who reads and uses it."""


@pytest.fixture(scope="module")
def folder(pruned_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one document of every kind."""
    place = tmp_path_factory.mktemp("mutations") / "run"
    shutil.copytree(pruned_run, place)
    row = {"method": "random", "seed": 0, "macs_ratio": 0.5, "pruned": 0.4, "recovered": 0.6}
    more = {"finetuned": None, "recovery": "least-squares", "kept": 9, "seconds": 1.0, "notes": ("odd",)}
    rows = tuple(Row(**row, **more, budget=budget) for budget in (0.5, "knee"))
    figures = BaseFigures(value=0.9, macs=1000, params=100)
    Comparison(schema=1, base=figures, rows=rows, left_out=("one",), job={"budget_of": "macs"}).save(
        place / "compare.json"
    )
    (place / "job.toml").write_text(
        'command = "prune"\nmodel = "base"\ndata = "npz:x.npz"\nskip = ["a"]\nresume = true\n'
    )
    decisions = Plan.load(place / "plan.json").groups
    unfinished = place / "unfinished"
    RunFolder(unfinished, unfinished).store("search", Selection.of(decisions, None, "said"))
    save_model(place / "text", tiny_text())
    return place


def tiny_text() -> torch.nn.Module:
    """A classifier of texts, as small as they get."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = BertConfig(**sizes, vocab_size=20, max_position_embeddings=16, num_labels=3)
    return BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def cases(folder: Path, base: Path, digits: str) -> list[Case]:
    """Every document with its readers."""
    net = coprune.load(base)
    data = coprune.load_data(digits, calibration=20, seed=0)
    context = Context.of(net, data, device="cpu")
    complementary = find_method("complementary")
    options = method_settings(complementary, {})
    sizes = {g.name: g.size for g in context.units.groups}
    few = context.statistics(complementary.needs(options)).tensors
    key = next(iter(few))
    index = folder / "profile" / "profile.json"
    stated = coprune.files.read_json(index, what="profile")

    def plan(file: Path) -> None:
        found = Plan.load(file)
        inspect(file.parent)
        write(file.parent)
        promise_note([], share=0.5, plan=found)
        coprune.apply_plan(net, found, EXAMPLE)

    def profile(file: Path) -> None:
        known = load_profile(index.parent, model=stated["model"], data=stated["data"], groups=sizes)
        check_profile(known, {k: few[k] for k in few if k in known}, where="profile")
        if key in known:
            complementary.choose(Profile(context.units.groups, known, "cpu"), options, 0)

    def resumed(file: Path) -> None:
        claim(file.parent, job={"prune": {}}, resume=True, overwrite=False)

    def searched(file: Path) -> None:
        RunFolder(file.parents[1], file.parents[1]).find("search", Selection)

    def compared(file: Path) -> None:
        write_compare(file.parent)
        Comparison.load(file)

    return [
        ("plan.json", mutated, plan),
        ("result.json", mutated, lambda file: (write(file.parent), note_latency(file.parent, []))),
        ("model.json", mutated, lambda file: coprune.load(file.parent)(EXAMPLE)),
        ("model.safetensors", tensors_mutated, lambda file: coprune.load(file.parent)),
        ("compare.json", mutated, compared),
        ("profile/profile.json", mutated, profile),
        (f"profile/{key}.safetensors", tensors_mutated, profile),
        ("job.toml", text_mutated, arguments_of),
        ("job.json", mutated, resumed),
        ("unfinished/work/search.json", mutated, searched),
        ("text/model.json", mutated, lambda file: coprune.load(file.parent)),
        ("text/config.json", mutated, lambda file: coprune.load(file.parent)),
    ]


def peak() -> int:
    """Most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attack(folder: Path, cases: list[Case], *, first: int, count: int) -> list[str]:
    """What went wrong with so many seeds."""
    wrong = []
    for seed in range(first, first + count):
        draw = random.Random(seed)
        name, change, use = cases[seed % len(cases)]
        file = folder / name
        whole = {path: path.read_bytes() for path in (file, folder / "result.json", folder / "report.html")}
        file.write_bytes(change(whole[file], draw))
        began, held = time.process_time(), peak()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                use(file)
        except UserError as refused:
            if "\n" in str(refused) or len(str(refused)) > 2000:
                wrong.append(f"{seed} {name}: {str(refused)[:200]!r}")
        except Exception as raised:
            wrong.append(f"{seed} {name}: {type(raised).__name__}: {str(raised)[:150]}")
        took, grown = time.process_time() - began, peak() - held
        if took > SECONDS or grown > GIGABYTE:
            wrong.append(f"{seed} {name}: {took:.1f} s, {grown >> 20} MB more")
        for path, content in whole.items():
            path.write_bytes(content)
    return wrong


def test_damage_gets_one_line(folder: Path, cases: list[Case]) -> None:
    assert attack(folder, cases, first=0, count=600) == []


@pytest.mark.slow
def test_two_thousand_more(folder: Path, cases: list[Case]) -> None:
    assert attack(folder, cases, first=600, count=2000) == []

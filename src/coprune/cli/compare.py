"""``coprune compare``: methods × budgets × seeds in one table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from coprune.cli import options as o

if TYPE_CHECKING:
    from coprune.pipeline.comparison import Comparison


def compare(
    model: o.Model,
    data: o.Data,
    out: o.Out,
    methods: Annotated[
        str, typer.Option(help="Methods, separated by commas.")
    ] = "complementary,cosep,random,magnitude,bn_scale,fpgm,taylor",
    keep_macs: Annotated[
        Optional[str],
        typer.Option(help="Shares of the MACs and/or knee, separated by commas; 0.5 by default."),
    ] = None,
    keep_heads: Annotated[
        Optional[str],
        typer.Option(help="Instead: shares of all attention heads and/or knee; nothing else goes."),
    ] = None,
    seeds: Annotated[int, o.Number("How many seeds.")] = 3,
    recovery: Annotated[
        str,
        typer.Option(
            help="least-squares, reconstruction, channel-least-squares, bn and/or none, separated by commas."
        ),
    ] = "least-squares",
    allocation: Annotated[
        str, typer.Option(help="Share out a budget: auto (each method's own way) or uniform for all.")
    ] = "auto",
    finetune_epochs: o.FinetuneEpochs = 0,
    finetune_images: o.FinetuneImages = None,
    finetune_lr: Annotated[
        Optional[str],
        typer.Option(
            help="Highest learning rate; of several, each method takes its best on calibration data."
        ),
    ] = None,
    finetune_optimizer: o.FinetuneOptimizer = None,
    finetune_schedule: o.FinetuneSchedule = None,
    finetune_warmup: o.FinetuneWarmup = None,
    finetune_weight_decay: o.FinetuneWeightDecay = None,
    finetune_clip: o.FinetuneClip = None,
    finetune_unit_clip: o.FinetuneUnitClip = None,
    batch_size: o.BatchSize = None,
    distill: o.Distill = None,
    match: o.Match = None,
    precision: o.Precision = None,
    calibration: o.Calibration = 2000,
    validation: o.Validation = None,
    units: o.KindsOfUnits = "",
    skip: o.Skip = "",
    only: o.Only = "",
    round_to: o.RoundTo = 1,
    in_channels: o.InChannels = None,
    num_classes: o.NumClasses = None,
    width: o.Width = None,
    weights: o.Weights = None,
    tokenizer: o.Tokenizer = None,
    trust: o.Trust = False,
    weighting: o.Weighting = None,
    scatter: o.Scatter = None,
    ridge: o.Ridge = None,
    places: o.Places = None,
    grid: o.Grid = None,
    at: o.At = None,
    space: o.Space = None,
    mss: o.Mss = None,
    knee: o.KneeRule = None,
    knee_degree: o.KneeDegree = None,
    sensitivity: o.Sensitivity = None,
    representative: o.Representative = None,
    start: o.Start = None,
    pairs: o.Pairs = None,
    tolerance: o.Tolerance = None,
    variance_eps: o.VarianceEps = None,
    share: o.Share = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Compare methods at the same MACs, with the same recovery and the same fine-tuning."""
    from coprune.bounds import Positive, Share
    from coprune.cli.parsing import checked, given, model_arguments, numbers, validated, words
    from coprune.cli.terminal import say
    from coprune.errors import UserError
    from coprune.pipeline.compare import run_compare
    from coprune.pipeline.compare_job import KNEE, CompareJob
    from coprune.pipeline.settings import finetune_recipe

    options = given(
        weighting=weighting,
        scatter=scatter,
        ridge=ridge,
        places=places,
        grid=grid,
        at=at,
        space=space,
        mss=mss,
        knee=knee,
        knee_degree=knee_degree,
        sensitivity=sensitivity,
        representative=representative,
        start=start,
        pairs=pairs,
        tolerance=tolerance,
        variance_eps=variance_eps,
        share=share,
    )
    if keep_heads is not None and keep_macs is not None:
        raise UserError("give --keep-macs or --keep-heads, not both")
    budget, budgets = "keep_macs", "0.5" if keep_macs is None else keep_macs
    if keep_heads is not None:
        budget, budgets = "keep_heads", keep_heads
    rates = numbers(finetune_lr or "", name="finetune_lr", kind=Positive)
    if finetune_lr is not None and not rates:
        raise UserError("--finetune-lr names no learning rate; e.g. --finetune-lr 0.02")
    job = validated(
        CompareJob,
        finetune_rates=rates,
        model=model,
        data=data,
        methods=words(methods, name="methods"),
        budgets=tuple(
            word if word == KNEE else checked(Share, word, name=budget)
            for word in words(budgets, name=budget)
        ),
        budget_of="macs" if keep_heads is None else "heads",
        options=options,
        seeds=seeds,
        recoveries=words(recovery, name="recovery"),
        allocation=allocation,
        finetune=finetune_recipe(
            epochs=finetune_epochs,
            images=finetune_images,
            lr=rates[0] if rates else None,
            optimizer=finetune_optimizer,
            schedule=finetune_schedule,
            warmup=finetune_warmup,
            weight_decay=finetune_weight_decay,
            clip=finetune_clip,
            unit_clip=finetune_unit_clip,
            batch_size=batch_size,
            distill=distill,
            match=match,
            precision=precision,
        ),
        weights=str(weights) if weights else None,
        tokenizer=tokenizer,
        trust=trust,
        arguments=model_arguments(in_channels, num_classes, width),
        calibration=calibration,
        validation=validation,
        force=force,
        units=words(units, name="units"),
        skip=words(skip, name="skip"),
        only=words(only, name="only"),
        round_to=round_to,
        device=device,
        threads=threads,
    )
    comparison = run_compare(job, out=out, resume=resume, overwrite=overwrite)
    print_comparison(comparison)
    say()
    say(f"table   {out / 'compare.json'}")
    say(f"report  {out / 'compare.html'}")


def print_comparison(comparison: Comparison) -> None:
    """The table of means and spreads on one screen, best first within a budget."""
    from coprune.cli.terminal import say, table
    from coprune.report import notes_of, summarise

    names = ("budget", "method", "recovery", "MACs", "pruned", "recovered", "fine-tuned", "seeds")
    rows: list[tuple[str, ...] | None] = []

    def cell(stage: tuple[float, float] | None, seeds: int) -> str:
        if stage is None:
            return "–"
        return f"{100 * stage[0]:.2f}" + (f"±{100 * stage[1]:.2f}" if seeds > 1 else "")

    before = None
    for row in summarise(comparison.as_json()):
        seeds = row["seeds"]
        if before not in (None, row["budget"]):
            rows.append(None)
        budget = row["budget"] if row["budget"] != before else ""
        before = row["budget"]
        ratio = row["macs_ratio"]
        rows.append(
            (
                f"{budget:g}" if isinstance(budget, float) else str(budget),
                row["method"],
                row["recovery"],
                f"{ratio[0] if isinstance(ratio, tuple) else ratio:.1%}",
                cell(row["pruned"], seeds),
                cell(row["recovered"], seeds),
                cell(row["finetuned"], seeds),
                str(seeds),
            )
        )
    base = comparison.base
    several = len({row.seed for row in comparison.rows}) > 1
    figures = "mean±deviation" if several else "one seed, which says of no method that it is the better one"
    say()
    say(f"base {base.value:.2%} at {base.macs / 1e6:.2f} M MACs; top-1 in %, {figures}")
    say()
    # In a file the table keeps its lines; on a narrow terminal rich folds it.
    columns = [(name, "left" if at < 3 else "right") for at, name in enumerate(names)]
    table(columns, rows, width=None if sys.stdout.isatty() else 100)
    for line in notes_of(comparison.as_json()):
        say(f"note: {line}")

"""``coprune prune``: from a trained model to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coprune.cli import options as o

if TYPE_CHECKING:
    from coprune.pipeline.settings import PruneSettings


def prune(
    model: o.Model,
    data: o.Data,
    out: o.Out,
    method: str = "complementary",
    keep_macs: o.KeepMacs = None,
    keep_params: o.KeepParams = None,
    keep_units: o.KeepUnits = None,
    keep_heads: o.KeepHeads = None,
    latency_ms: o.LatencyMs = None,
    max_drop: o.MaxDrop = None,
    allocation: o.Allocation = "auto",
    schedule: o.Schedule = "oneshot",
    between_epochs: o.BetweenEpochs = None,
    between_fraction: o.BetweenFraction = None,
    between_lr: o.BetweenLr = None,
    recovery: o.Recovery = "auto",
    finetune_epochs: o.FinetuneEpochs = 0,
    finetune_images: o.FinetuneImages = None,
    finetune_lr: o.FinetuneLr = None,
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
    profile: o.Profile = None,
    latency_batches: o.LatencyBatches = "1,32",
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
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Prune a trained model: select, cut, recover, fine-tune, measure, report.

    Methods: complementary; for channels cosep, bn_scale, fpgm, lamp, hessian; for attention heads cahp,
    michel, medoid, last_layers, head_magnitude; for all of them random, magnitude, magnitude_l2, taylor.
    Without a budget the method's own knee decides.
    """
    from coprune.bounds import Batch
    from coprune.budget.counts import Budget
    from coprune.cli.parsing import given, model_arguments, numbers, validated, words
    from coprune.pipeline.jobs import PruneJob
    from coprune.pipeline.prune import run_prune
    from coprune.pipeline.settings import PruneSettings, between_recipe, finetune_recipe

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
    layerwise = schedule == "layerwise"
    settings = validated(
        PruneSettings,
        method=method,
        options=options,
        budget=validated(
            Budget,
            keep_macs=keep_macs,
            keep_params=keep_params,
            keep_units=keep_units,
            keep_heads=keep_heads,
            latency_ms=latency_ms,
            max_drop=max_drop,
        ),
        allocation=allocation,
        schedule=schedule,
        between=between_recipe(
            layerwise=layerwise,
            batch_size=batch_size,
            precision=precision,
            epochs=between_epochs,
            fraction=between_fraction,
            lr=between_lr,
        ),
        recovery=recovery,
        finetune=finetune_recipe(
            layerwise=layerwise,
            epochs=finetune_epochs,
            images=finetune_images,
            lr=finetune_lr,
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
        units=words(units, name="units"),
        skip=words(skip, name="skip"),
        only=words(only, name="only"),
        round_to=round_to,
        latency_batches=numbers(latency_batches, name="latency_batches", kind=Batch),
        profile=str(profile) if profile else None,
        force=force,
        seed=seed,
        device=device,
        threads=threads,
    )
    job = validated(
        PruneJob,
        model=model,
        data=data,
        weights=str(weights) if weights else None,
        trust=trust,
        tokenizer=tokenizer,
        arguments=model_arguments(in_channels, num_classes, width),
        calibration=calibration,
        validation=validation,
        settings=settings,
    )
    summarise(run_prune(job, out=out, resume=resume, overwrite=overwrite), settings)


def summarise(run: Path, settings: PruneSettings | None = None) -> None:
    """Print a finished run on one screen, naming its files."""
    from coprune.cli.terminal import say, table
    from coprune.pipeline.measure import promise_note, told
    from coprune.plan import Plan
    from coprune.report import formatting as words
    from coprune.result import Code, Result
    from coprune.store.model import needs_trust

    plan, result = Plan.load(run / "plan.json"), Result.load(run / "result.json")
    base, units = result.stages[0], result.units
    say()
    say(
        f" ({plan.budget}, seed {result.seed}) kept {units['kept']} of {units['total']} units in "
        f"{len(plan.groups)} groups",
        bold=result.method,
    )
    say()
    names = ("", "top-1", "MACs", "", "parameters", "", "file")
    table(
        [(name, "right" if at else "left") for at, name in enumerate(names)],
        [
            (
                stage.name,
                f"{stage.value:.2%}",
                f"{stage.macs / 1e6:.2f} M",
                f"{stage.macs / base.macs:.0%}",
                f"{stage.params:,}",
                f"{stage.params / base.params:.0%}",
                f"{(stage.bytes or 0) / 1e6:.2f} MB",
            )
            for stage in result.stages
        ],
    )
    for note in result.notes:
        if note.code == Code.MORE_LOST:
            say(bold=f"note: {note}")
    if result.judged:
        say(f"judged   {words.judged(result.judged)}")
    if words.held_out(result):
        say(f"held out {words.held_out(result)}; {result.calibration or 0:,} for calibration")
    for entry in result.latency:
        say(
            f"batch {entry.batch}, {entry.threads} threads, {entry.device}: {entry.base_ms:.2f} → "
            f"{entry.pruned_ms:.2f} ms, {told(entry)} (median of {entry.repeats})"
        )
    share = result.stages[-1].macs / base.macs
    slow = promise_note(result.latency, share=share, plan=plan)
    if slow:
        say(f"note: {slow}")
    if plan.knees:
        fallbacks = sum(1 for k in plan.knees if k.fallback)
        said = f"the knee says {sum(k.k for k in plan.knees)} of {units['total']} units"
        say(said + (f" ({fallbacks} by fallback)" if fallbacks else ""))
    for note in result.notes:
        if note.code != Code.MORE_LOST:
            say(f"note: {note}")
    say()
    say(f"{len(plan.skipped)} layers left alone (why: coprune inspect {run})")
    trust = ", trust=True" if needs_trust(run) else ""
    say(f"model   {run / 'model.safetensors'}   coprune.load({str(run)!r}{trust})")
    for what, file in (("plan", "plan.json"), ("figures", "result.json"), ("report", "report.html")):
        say(f"{what:7} {run / file}")

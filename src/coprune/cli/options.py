"""Options that several subcommands share, so that each has one name, one help text, one default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer

T = TypeVar("T")


def number(text: T) -> T:
    """What is typed for a number stays as it is: the settings know which are allowed (coprune.bounds)."""
    return text


def Number(help: str, *names: str) -> Any:  # noqa: N802 - stands beside typer.Option
    """An option that takes a number."""
    return typer.Option(*names, help=help, parser=number, metavar="NUMBER")


Model = Annotated[
    str,
    typer.Option(
        help="coprune:NET, coprune:NET@DATA (trained), torchvision:, timm:, pytorchcv: or hf:NAME, "
        "python:module:factory, or a run folder."
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="fashion-mnist[:ROOT], fashion-mnist-sample, cifar10[:ROOT], cifar100[:ROOT], "
        "imagefolder:ROOT[@SIZE], npz:FILE; texts: tsv:FILE, sst5:ROOT, mnli:ROOT, "
        "mnli-mm:ROOT, hf:NAME[:CONFIG]."
    ),
]
Tokenizer = Annotated[
    Optional[str], typer.Option(help="Texts: folder or id of a tokenizer; the model's by default.")
]
Weights = Annotated[Optional[Path], typer.Option(help="safetensors, or a .pt/.pth state dict.")]
InChannels = Annotated[Optional[int], Number("Image channels; taken from the data if not given.")]
NumClasses = Annotated[Optional[int], Number("Classes; taken from the data if not given.")]
Width = Annotated[Optional[int], Number("Channels of the first stage.")]
Calibration = Annotated[int, Number("Training samples set aside for statistics and decisions.")]

Trust = Annotated[
    bool, typer.Option("--trust", help="Run the python: factory that the run folder given as --model names.")
]

Validation = Annotated[
    Optional[str],
    typer.Option(
        help="What judges --max-drop, the knee and training: other data (its held-out part), a number of "
        "samples taken out of the held-out part, or none; the data's own validation part by default."
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Go on where figures mean nothing: a base at chance, samples all alike."),
]

Out = Annotated[Path, typer.Option(help="Folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Seed = Annotated[int, Number("Same seed, same result.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[Optional[int], Number("CPU threads; all by default.")]

KeepMacs = Annotated[Optional[float], Number("Share of the MACs to keep, in (0, 1].")]
KeepParams = Annotated[Optional[float], Number("Share of the parameters to keep, in (0, 1].")]
LatencyMs = Annotated[
    Optional[float], Number("Milliseconds that one sample may take here, on these threads.")
]
KeepUnits = Annotated[Optional[float], Number("Share of every group's units to keep, in (0, 1].")]
KeepHeads = Annotated[
    Optional[float], Number("Share of all attention heads to keep, in (0, 1]; nothing else goes.")
]
KindsOfUnits = Annotated[
    str,
    typer.Option(
        help="What to remove: inner (channels), coupled (channels of residual sums, concatenations, grouped "
        "layers), heads, neurons, separated by commas; all but coupled by default."
    ),
]
MaxDrop = Annotated[
    Optional[float],
    Number("Smallest model that loses at most this many points on calibration data."),
]
Allocation = Annotated[
    str, typer.Option(help="Share out a budget: uniform, measured (sensitivity), knee; auto: the method's.")
]
Schedule = Annotated[
    str, typer.Option(help="oneshot; or layerwise: select, cut and train layer after layer.")
]
BetweenEpochs = Annotated[Optional[int], Number("layerwise: epochs after each layer; 2 by default.")]
BetweenFraction = Annotated[
    Optional[float], Number("layerwise: share of the training samples; 0.25 by default.")
]
BetweenLr = Annotated[
    Optional[float],
    Number("layerwise: learning rate, halved after an epoch; 0.01 by default, 2e-5 of transformers."),
]
Recovery = Annotated[
    str,
    typer.Option(
        help="Without labels: least-squares, reconstruction (then all layers together: better, slower), "
        "channel-least-squares (each layer by itself), bn (re-estimate batch norm), none; auto: the method's."
    ),
]
Skip = Annotated[str, typer.Option(help="Layers to leave alone, separated by commas.")]
Only = Annotated[
    str, typer.Option(help="Layers whose groups may be pruned, and nothing else; all by default.")
]
RoundTo = Annotated[int, Number("Groups keep multiples of so many units, or all; smaller groups any.")]
Profile = Annotated[Optional[Path], typer.Option(help="Statistics of an earlier run to reuse: RUN/profile.")]

OPTIMIZER = "sgd, the default, or adamw, that of transformers."
WARMUP = "Share of the steps in which the rate first rises; 0 by default, 0.1 of transformers."
WEIGHT_DECAY = "5e-4 by default; 0.01 of transformers, on all but biases and norms."
CLIP = "Largest norm of a step's gradient; none by default, 1 of transformers."

FinetuneEpochs = Annotated[int, Number("Epochs of training at the end.")]
FinetuneImages = Annotated[
    Optional[int],
    Number("Train on so many samples only; all by default."),
]
FinetuneLr = Annotated[
    Optional[float], Number("Highest learning rate; 0.02 by default, 2e-5 of transformers.")
]
FinetuneOptimizer = Annotated[Optional[str], typer.Option(help=OPTIMIZER)]
FinetuneSchedule = Annotated[
    Optional[str],
    typer.Option(
        help="cosine, linear, onecycle, step or constant; cosine by default, linear of transformers."
    ),
]
FinetuneWarmup = Annotated[Optional[float], Number(WARMUP)]
FinetuneWeightDecay = Annotated[Optional[float], Number(WEIGHT_DECAY)]
FinetuneClip = Annotated[Optional[float], Number(CLIP)]
FinetuneUnitClip = Annotated[
    Optional[float],
    Number("Largest norm of a unit's gradient, as a share of its weights'; 0.2 with --match and sgd, or 0."),
]
BatchSize = Annotated[Optional[int], Number("Samples a training step; 128 by default, 32 of transformers.")]
Distill = Annotated[
    Optional[float],
    Number("Weight of the unpruned model's soft labels in the loss, 0 to 1; 0.9 by default."),
]
Match = Annotated[
    Optional[float],
    Number("Weight of the error of hidden outputs against the unpruned model's; 10 with --distill."),
]
Precision = Annotated[
    Optional[str], typer.Option(help="auto (mixed on a GPU, the default), fp32, bf16 or fp16.")
]

LatencyBatches = Annotated[str, typer.Option(help="Batch sizes to time, separated by commas.")]

Weighting = Annotated[
    Optional[str], typer.Option(help="complementary: weigh output errors by sensitivity, or none.")
]
Scatter = Annotated[
    Optional[float],
    Number("complementary: weight of the spread between class means; 0: no labels."),
]
Ridge = Annotated[Optional[float], Number("complementary: ridge of the elimination, relative.")]
Places = Annotated[Optional[int], Number("complementary: pixels looked at, a sample and layer.")]
Grid = Annotated[
    Optional[int],
    Number("cosep: pixel cells a side; 1 pooled, 0 every pixel. cahp: cells a side of a map."),
]
At = Annotated[Optional[str], typer.Option(help="cosep: read activations at the consumer or the producer.")]
Space = Annotated[Optional[str], typer.Option(help="cosep: profile or tsne; cahp: tsne or full.")]
Mss = Annotated[Optional[str], typer.Option(help="cosep, cahp: silhouette, paper or nearest.")]
KneeRule = Annotated[Optional[str], typer.Option("--knee", help="cosep: interpolate or polynomial.")]
KneeDegree = Annotated[Optional[int], Number("cosep, cahp: degree of the polynomial (2, 6).")]
Sensitivity = Annotated[Optional[float], Number("cosep: Kneedle's S.")]
Representative = Annotated[
    Optional[str], typer.Option(help="cosep: keep a cluster's largest weight or its medoid.")
]
Start = Annotated[
    Optional[str],
    typer.Option(help="cosep: start of k-medoids: previous k, random, or the best of k ± 1."),
]
Pairs = Annotated[Optional[str], typer.Option(help="cosep: exact or sketch; auto: a sketch of large groups.")]
Tolerance = Annotated[
    Optional[float], Number("cosep: largest error of a sketched distance, in JM a class pair.")
]
Share = Annotated[Optional[float], Number("cahp: share of the batches that the salience is read from.")]
VarianceEps = Annotated[
    Optional[float], Number("cosep: floor of a class variance, relative to the mean square.")
]

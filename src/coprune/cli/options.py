"""Options that several subcommands share, so that each has one name, one help text, one default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

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
InChannels = Annotated[
    Optional[int], typer.Option(help="Image channels; taken from the data if not given.", min=1)
]
NumClasses = Annotated[Optional[int], typer.Option(help="Classes; taken from the data if not given.", min=1)]
Width = Annotated[Optional[int], typer.Option(help="Channels of the first stage.", min=1)]
Calibration = Annotated[
    int, typer.Option(help="Training samples set aside for statistics and decisions.", min=2)
]

Trust = Annotated[
    bool, typer.Option("--trust", help="Run the python: factory that the run folder given as --model names.")
]

Out = Annotated[Path, typer.Option(help="Folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[Optional[int], typer.Option(help="CPU threads; all by default.", min=1)]

KeepMacs = Annotated[Optional[float], typer.Option(help="Share of the MACs to keep, in (0, 1].")]
KeepParams = Annotated[Optional[float], typer.Option(help="Share of the parameters to keep, in (0, 1].")]
LatencyMs = Annotated[
    Optional[float], typer.Option(help="Milliseconds that one sample may take here, on these threads.")
]
KeepUnits = Annotated[Optional[float], typer.Option(help="Share of every group's units to keep, in (0, 1].")]
KeepHeads = Annotated[
    Optional[float], typer.Option(help="Share of all attention heads to keep, in (0, 1]; nothing else goes.")
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
    typer.Option(help="Smallest model that loses at most this many points on calibration data."),
]
Allocation = Annotated[
    str, typer.Option(help="Share out a budget: uniform, measured (sensitivity), knee; auto: the method's.")
]
Schedule = Annotated[
    str, typer.Option(help="oneshot; or layerwise: select, cut and train layer after layer.")
]
BetweenEpochs = Annotated[int, typer.Option(help="layerwise: epochs after each layer.", min=0)]
BetweenFraction = Annotated[float, typer.Option(help="layerwise: share of the training samples.")]
BetweenLr = Annotated[float, typer.Option(help="layerwise: learning rate, halved after an epoch.")]
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
RoundTo = Annotated[
    int, typer.Option(help="Groups keep multiples of so many units, or all; smaller groups any.", min=1)
]
Profile = Annotated[Optional[Path], typer.Option(help="Statistics of an earlier run to reuse: RUN/profile.")]

FinetuneEpochs = Annotated[int, typer.Option(help="Epochs of training at the end.", min=0)]
FinetuneImages = Annotated[
    Optional[int],
    typer.Option(help="Train on so many samples only; all by default.", min=1),
]
FinetuneLr = Annotated[float, typer.Option(help="Highest learning rate.")]
FinetuneOptimizer = Annotated[str, typer.Option(help="sgd, or adamw (for transformers).")]
FinetuneSchedule = Annotated[str, typer.Option(help="cosine, linear, onecycle, step or constant.")]
FinetuneWarmup = Annotated[float, typer.Option(help="Share of the steps in which the rate first rises.")]
FinetuneWeightDecay = Annotated[float, typer.Option(help="Of adamw on all but biases and norms.")]
FinetuneClip = Annotated[Optional[float], typer.Option(help="Largest norm of a step's gradient.")]
FinetuneUnitClip = Annotated[
    Optional[float],
    typer.Option(
        help="Largest norm of a unit's gradient, as a share of its weights'; 0.2 with --match and sgd, or 0."
    ),
]
BatchSize = Annotated[int, typer.Option(help="Samples a training step.", min=1)]
Distill = Annotated[
    float, typer.Option(help="Weight of the unpruned model's soft labels in the loss, 0 to 1.")
]
Match = Annotated[
    Optional[float],
    typer.Option(
        help="Weight of the error of hidden outputs against the unpruned model's; 10 with --distill."
    ),
]
Precision = Annotated[str, typer.Option(help="auto (mixed on a GPU), fp32, bf16 or fp16.")]

LatencyBatches = Annotated[str, typer.Option(help="Batch sizes to time, separated by commas.")]

Weighting = Annotated[
    Optional[str], typer.Option(help="complementary: weigh output errors by sensitivity, or none.")
]
Scatter = Annotated[
    Optional[float],
    typer.Option(help="complementary: weight of the spread between class means; 0: no labels."),
]
Ridge = Annotated[Optional[float], typer.Option(help="complementary: ridge of the elimination, relative.")]
Places = Annotated[Optional[int], typer.Option(help="complementary: pixels looked at, a sample and layer.")]
Grid = Annotated[
    Optional[int],
    typer.Option(help="cosep: pixel cells a side; 1 pooled, 0 every pixel. cahp: cells a side of a map."),
]
At = Annotated[Optional[str], typer.Option(help="cosep: read activations at the consumer or the producer.")]
Space = Annotated[Optional[str], typer.Option(help="cosep: profile or tsne; cahp: tsne or full.")]
Mss = Annotated[Optional[str], typer.Option(help="cosep, cahp: silhouette, paper or nearest.")]
KneeRule = Annotated[Optional[str], typer.Option("--knee", help="cosep: interpolate or polynomial.")]
KneeDegree = Annotated[Optional[int], typer.Option(help="cosep, cahp: degree of the polynomial (2, 6).")]
Sensitivity = Annotated[Optional[float], typer.Option(help="cosep: Kneedle's S.")]
Representative = Annotated[
    Optional[str], typer.Option(help="cosep: keep a cluster's largest weight or its medoid.")
]
Start = Annotated[
    Optional[str],
    typer.Option(help="cosep: start of k-medoids: previous k, random, or the best of k ± 1."),
]
Pairs = Annotated[Optional[str], typer.Option(help="cosep: exact or sketch; auto: a sketch of large groups.")]
Tolerance = Annotated[
    Optional[float], typer.Option(help="cosep: largest error of a sketched distance, in JM a class pair.")
]
Share = Annotated[
    Optional[float], typer.Option(help="cahp: share of the batches that the salience is read from.")
]
VarianceEps = Annotated[
    Optional[float], typer.Option(help="cosep: floor of a class variance, relative to the mean square.")
]

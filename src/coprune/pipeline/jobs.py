"""What the commands that write a run folder can be asked for. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from coprune.bounds import Calibration, Channels, Classes, Length
from coprune.data.names import is_text
from coprune.errors import UserError, setting
from coprune.options import DATA, MODEL, PATH, Nested, Options, Reads, valid
from coprune.pipeline.inputs import check_there
from coprune.pipeline.run_folder import check_out
from coprune.pipeline.settings import (
    Machine,
    PruneSettings,
    Seeded,
    Timing,
    Trust,
    Working,
    check_settings,
    trainings,
)
from coprune.recovery.registry import RECOVERY_WORDS, RecoveryName
from coprune.tasks.names import METRICS, TaskName
from coprune.training.defaults import BaseRecipe
from coprune.training.recipe import Recipe

if TYPE_CHECKING:
    from coprune.pipeline.which_task import Asked


class Shape(Options, title="The model"):
    """Arguments of a network's factory.

    Attributes:
        in_channels: image channels; the data's by default.
        num_classes: classes; the data's by default.
        width: channels of the first stage.
        features_only: ``timm``: the maps of all stages, and no classes.
    """

    in_channels: Channels | None = None
    num_classes: Classes | None = None
    width: Channels | None = None
    features_only: bool | None = None


_SHAPE = Nested(Shape, make=lambda given, _: valid(Shape, given).model_dump(exclude_none=True))


_TRAINING = (
    "epochs", "lr", "batch_size", "optimizer", "schedule", "warmup", "clip", "weight_decay", "precision",
)  # fmt: skip


class Meaning(Options, title="The task"):
    """What the outputs mean.

    Attributes:
        task: what outputs and targets are; found where data and model plainly say it: class numbers,
            transformers' classes. Without targets agreement with the unpruned model is judged.
        metric: what is judged: a name (top1, f1, r2, mse, miou, perplexity, …) or python:module:name, a
            torchmetrics metric, compute_metrics, or a function (model, batches) → float; the task's own by
            default.
        outputs: names of the parts of the model's output that count, such as ``logits`` or out; a number is a
            place in a tuple.
        loss: ``python:module:name``, a function (output, targets) → scalar, for training and Taylor's scores;
            the task's own by default.
    """

    task: TaskName | None = None
    metric: str | None = None
    outputs: tuple[str, ...] = ()
    loss: str | None = None

    @property
    def asked(self) -> Asked:
        """The same, for :func:`coprune.pipeline.which_task.which_task`."""
        return self.asked_of(None)

    def asked_of(self, known: str | None) -> Asked:
        """The same of a model whose task is known, where nothing else is said."""
        from coprune.pipeline.which_task import Asked

        return Asked(self.task or known, self.metric, self.outputs, self.loss)


class Job(Trust, Meaning, title="The model"):
    """What every job reads.

    Attributes:
        model: ``coprune:NET``, coprune:NET@DATA (trained), torchvision:, timm:, pytorchcv: or hf:NAME,
            ultralytics:FILE.pt or NAME.yaml, python:module:factory, or a run folder.
        data: ``fashion-mnist[:ROOT]``, fashion-mnist-sample, cifar10[:ROOT], cifar100[:ROOT],
            imagefolder:ROOT[@SIZE], folder:ROOT[@SIZE] (no labels), npz:FILE; texts: tsv:FILE, lines:FILE (no
            labels), sst5:ROOT, mnli:ROOT, mnli-mm:ROOT; hf:NAME[:CONFIG]; loaders: python:module:function.
        weights: ``safetensors``, or what torch.save wrote, in any usual wrapping (.pt, .pth, .ckpt, .bin).
        tokenizer: texts: folder or id of a tokenizer; the model's by default.
        max_length: texts: tokens of a sample at most; the tokenizer's by default, and 128 of text-generation.
    """

    model: Annotated[str, MODEL]
    data: Annotated[str, DATA]
    weights: Annotated[str | None, Reads("path", "weights file")] = None
    tokenizer: Annotated[str | None, PATH] = None
    max_length: Length | None = None
    arguments: Annotated[Mapping[str, Any], _SHAPE] = {}

    def set_aside(self) -> dict[str, Any]:
        """Samples that are taken out of the data, as :func:`coprune.data.load_data` is asked for them."""
        return {"calibration": 0, "validation": None}

    def check(self, out: Path, *, resume: bool, overwrite: bool) -> None:
        """Refuse, before torch is loaded and anything is touched, what can be refused.

        Args:
            out: the folder to write.
            resume, overwrite: see :func:`coprune.pipeline.run_folder.claim`.

        Raises:
            UserError: options that contradict each other, unknown names, a folder that is taken.
        """
        check_there(self)
        if self.metric is not None and ":" not in self.metric:
            METRICS.check(self.metric)
        check_out(out, self, resume=resume, overwrite=overwrite)
        if self.tokenizer is not None and not is_text(self.data):
            asked = setting("tokenizer", self.tokenizer)
            raise UserError(f"{asked} is for texts, and {self.data} holds images")


class CalibratedJob(Job, title="The data"):
    """A job that decides by samples that are set aside.

    Attributes:
        calibration: training samples set aside for statistics and decisions; where the others are trained
            on, at most a quarter.
        validation: what judges --max-drop, the knee and training: other data (its held-out part), a number
            of samples taken out of the held-out part, or none; the data's own validation part by default.
    """

    calibration: Calibration = 2000
    validation: Annotated[str | None, DATA] = None

    @property
    def trains(self) -> bool:
        """Whether something is trained on the samples that are not set aside."""
        return False

    def set_aside(self) -> dict[str, Any]:
        """See :meth:`Job.set_aside`."""
        return {"calibration": self.calibration, "validation": self.validation, "training": self.trains}


class PruneJob(CalibratedJob):
    """Everything ``coprune prune`` can be asked for, but where to write."""

    settings: PruneSettings = PruneSettings()

    @property
    def trains(self) -> bool:
        """See :attr:`CalibratedJob.trains`."""
        return any(recipe.epochs for recipe in trainings(self.settings))

    def check(self, out: Path, *, resume: bool, overwrite: bool) -> None:
        """See :meth:`Job.check`."""
        check_settings(self.settings)
        super().check(out, resume=resume, overwrite=overwrite)


class TrainJob(Job, Seeded, Machine):
    """Everything ``coprune train`` can be asked for, but where to write."""

    recipe: Annotated[Recipe, Nested(BaseRecipe, fields=_TRAINING)]


class RecoverJob(CalibratedJob, Timing, Seeded, Working, Machine):
    """Everything ``coprune recover`` can be asked for, but where to write.

    Attributes:
        model: the pruned model: a run folder or python:module:factory.
        teacher: the unpruned model, under any name that --model takes.
        plan: the plan that cut it; else that of its folder, else found by the channels' behaviour.
        recovery: {recoveries but none}.
    """

    help_words = RECOVERY_WORDS

    teacher: Annotated[str, MODEL]
    plan: Annotated[str | None, Reads("path", "plan")] = None
    recovery: RecoveryName = "least-squares"

    @property
    def of_teacher(self) -> CalibratedJob:
        """What is read of the unpruned model."""
        own = {"model", "weights", "arguments"}
        asked = self.model_dump(include=CalibratedJob.model_fields.keys() - own)
        return CalibratedJob(model=self.teacher, **asked)


class Writing(Options, title="What is written"):
    """Where a run goes.

    Attributes:
        out: folder to write.
        resume: continue an interrupted run.
        overwrite: replace an existing run folder.
    """

    out: Path
    resume: bool = False
    overwrite: bool = False


class Measuring(Timing, Machine, Meaning, Trust):
    """What is measured, and on what.

    Attributes:
        data: also measure accuracy on this data's held-out part.
        input_shape: of one sample, e.g. 1,28,28; not needed with --data.
        engine: what to time with: torch, onnxruntime, or both.
    """

    data: str | None = None
    input_shape: tuple[Length, ...] = ()
    engine: tuple[str, ...] = ("torch",)

"""The two formats, each a way from a program to bytes and a way to run those bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from coprune.errors import UserError, first_line
from coprune.export.program import Run, Traced, free_axes, input_names
from coprune.lazy import required
from coprune.tracing.forward import FAILURES, Inputs, tensors_of

_NEEDS = "needs onnx, onnxscript and onnxruntime"


def onnx_bytes(traced: Traced) -> bytes:
    """A program as an ONNX model with the axes ``batch`` and ``sequence`` free.

    Args:
        traced: of :func:`coprune.export.program.traced_program`.

    Raises:
        UserError: the extra ``export`` is not installed, an operation without a translation, or a model
            beyond the 2 GB that an ONNX file of one piece can have.
    """
    for module in ("onnx", "onnxscript"):
        required(module, f"--onnx {_NEEDS}", extra="export")
    how: Any = {"input_names": list(traced.reads), "output_names": list(traced.hands_back), "dynamo": True}
    how["dynamic_shapes"] = free_axes(traced.inputs, "batch", "sequence")
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about its own internals
            made: Any = torch.onnx.export(traced.program, (), verbose=False, **how)
        return made.model_proto.SerializeToString()
    except (*FAILURES, torch.onnx.OnnxExporterError) as cause:
        root: BaseException = cause  # what surrounds it says at which of its steps the library is
        while root.__cause__ is not None:
            root = root.__cause__
        raise UserError(f"no ONNX for this model ({first_line(root)}); --torch-export may do") from cause


def onnx_runner(content: bytes) -> Run:
    """ONNX Runtime on the CPU, on as many threads as PyTorch has.

    Raises:
        UserError: onnxruntime is not installed, or it refuses the model.
    """
    onnxruntime = required("onnxruntime", f"ONNX Runtime is missing; this {_NEEDS}", extra="export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # a class of its own a cause, none of them an error of Python
        raise UserError(f"ONNX Runtime refuses the model ({first_line(cause)})") from cause
    # An input that nothing depends on has been left out.
    names = {entry.name for entry in session.get_inputs()}

    def run(inputs: Inputs) -> list[Tensor]:
        given = zip(input_names(inputs), tensors_of(inputs), strict=True)
        found = session.run(None, {name: tensor.cpu().numpy() for name, tensor in given if name in names})
        return list(map(torch.from_numpy, found))

    return run


def torch_export_bytes(traced: Traced) -> bytes:
    """A program as the content of a ``.pt2`` file, which ``torch.export.load`` opens."""
    content = io.BytesIO()
    torch.export.save(traced.program, content)
    return content.getvalue()


def torch_export_runner(content: bytes) -> Run:
    """The program as it is read back."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(inputs: Inputs) -> list[Tensor]:
        with torch.no_grad():
            return tree_leaves(module(*tensors_of(inputs)))

    return run


@dataclass(frozen=True)
class Format:
    """One way to write a model.

    Attributes:
        suffix: of its files.
        content: program → the file's bytes.
        runner: those bytes → something to run.
        reader: who opens such a file, for messages.
    """

    suffix: str
    content: Callable[[Traced], bytes]
    runner: Callable[[bytes], Run]
    reader: str


FORMATS = {
    "onnx": Format(".onnx", onnx_bytes, onnx_runner, "ONNX Runtime"),
    "torch-export": Format(".pt2", torch_export_bytes, torch_export_runner, "torch.export"),
}

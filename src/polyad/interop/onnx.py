"""Graphs traced by torch's exporter, written as ONNX files and run by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MODEL, DATA = "model.onnx", "model.onnx_data"
"""The file of a graph, and the file beside it that holds its numbers where they are many."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 21
PRODUCT = "MatMulNBits"
SUMS = {"sequence + past_sequence": "past_and_sequence", "past_sequence + sequence": "past_and_sequence"}
SMALL = 1024
"""Bytes below which a tensor stays in the graph's own file, as it is."""


def require_packages() -> None:
    """Refuse to go on without the packages that write and run ONNX files, saying what installs them."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ImportError(
                f"the format onnx needs the package {name}; install it with pip install 'polyad[onnx]'"
            ) from None


def trace_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]], outputs: Sequence[str]
) -> Any:
    """A graph of onnx_ir from a module called with these tensors in their order; ``axes`` names what may change.

    Raises ValueError with the exporter's own words where it does not take the module.
    """
    dynamic = tuple(dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC) for name in inputs)
    try:
        with _silence(), torch.no_grad():
            exported = torch.export.export(
                module, tuple(inputs.values()), dynamic_shapes={"tensors": dynamic}, strict=False
            )
            program: Any = torch.onnx.export(
                exported, dynamo=True, verbose=False, optimize=True, opset_version=OPSET,
                input_names=list(inputs), output_names=list(outputs),
            )  # fmt: skip
    except Exception as error:  # of any kind: what a tracer meets in a model's code
        raise ValueError(_first_lines(error)) from error
    _name_axes(program.model, axes)
    _drop_traces(program.model)
    return program.model


def _first_lines(error: BaseException) -> str:
    """The first cause of an error, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's notices of packages that it does not find, and of its own parts that are to change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _name_axes(model: Any, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Put readable names in the place of the tracer's symbols, wherever these stand."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, name in axes[value.name].items():
            names[str(value.shape[axis].value)] = name
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in _values(model.graph):
        if value.shape is None:
            continue
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int) and size.value is not None:
                named = pattern.sub(lambda m: names[m[0]], str(size.value))
                value.shape[axis] = SUMS.get(named, named)


def _drop_traces(model: Any) -> None:
    """Take out the exporter's notes of which line of whose code each node is of; they are most of a small file."""
    model.producer_name, model.producer_version = "polyad", ""
    for value in _values(model.graph):
        value.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
    for part in (*model.graph.initializers.values(), model.graph, model):
        part.metadata_props.clear()


def _values(graph: Any) -> Iterator[Any]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def write_graph(model: Any, folder: Path, limit: int) -> None:
    """Write a graph to a folder: one file, or with its numbers in one beside it where they take more than ``limit``.

    The second file is stated by its name alone, so that the folder can be moved.
    """
    ir: Any = importlib.import_module("onnx_ir")
    apart = {"external_data": DATA, "size_threshold_bytes": SMALL} if graph_bytes(model) > limit else {}
    with _silence():
        ir.save(model, folder / MODEL, **apart)


def graph_bytes(model: Any) -> int:
    """The bytes of a graph's numbers."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())


def narrow_numbers(model: Any) -> int:
    """Store float32 numbers in bfloat16 or float16 where every one of them is exactly such; how many tensors.

    The engine restores them when it loads the file.
    """
    ir: Any = importlib.import_module("onnx_ir")
    changed = 0
    for name, value in list(model.graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT or value.const_value.nbytes < SMALL or value.is_graph_output():
            continue
        numbers = torch.from_numpy(value.const_value.numpy().copy())
        kind = next((d for d in (torch.bfloat16, torch.float16) if torch.equal(numbers.to(d).float(), numbers)), None)
        if kind is None:
            continue
        element = ir.DataType.BFLOAT16 if kind == torch.bfloat16 else ir.DataType.FLOAT16
        bits = numbers.to(kind).view(torch.uint16).numpy()
        narrow = ir.Value(name=f"{name}_narrow", type=ir.TensorType(element), shape=value.shape)
        narrow.const_value = ir.Tensor(bits.view(element.numpy()), dtype=element, name=narrow.name)
        model.graph.register_initializer(narrow)
        cast = ir.node("Cast", [narrow], attributes={"to": ir.DataType.FLOAT}, name=f"{name}_restored")
        cast.outputs[0].name, cast.outputs[0].shape = f"{name}_wide", value.shape
        cast.outputs[0].type = value.type
        model.graph.insert_before(model.graph[0], cast)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[name]
        changed += 1
    return changed


def count_products(model: Any) -> dict[int, int]:
    """The number of matrices that MatMulNBits multiplies with, by the bits of their codes."""
    bits = {node.inputs[1].name: node.attributes["bits"].value for node in model.graph if node.op_type == PRODUCT}
    return {width: sum(b == width for b in bits.values()) for width in sorted(set(bits.values()))}


def set_accuracy_level(model: Any, level: int) -> int:
    """Give every MatMulNBits of a graph this ``accuracy_level``; the number of them."""
    ir: Any = importlib.import_module("onnx_ir")
    nodes = [node for node in model.graph if node.op_type == PRODUCT]
    for node in nodes:
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", level)
    return len(nodes)


class Session:
    """A file that onnxruntime has loaded; raises ValueError with its words where it refuses it."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, one for each of its codes
            raise ValueError(f"onnxruntime refuses the file ({_first_lines(error)})") from None
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name for these inputs; those that the graph does not read are left out."""
        wanted = {name: feeds[name].contiguous().numpy() for name in self.inputs}
        try:
            results = self._session.run(None, wanted)
        except Exception as error:
            raise ValueError(f"onnxruntime cannot run the file ({_first_lines(error)})") from None
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, results, strict=True)}

"""Checks of a format's tensors, its spec, its size, casts, copies and files."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import safetensors.torch
import torch
from torch import Tensor
from torch.utils import _pytree

from polyad.formats import Format, Sum
from polyad.testing._contract import contract, exactness


@contract
def tensors(format: Format) -> None:
    """``replace`` inverts ``tensors``, takes new numbers, and names what is missing."""
    parts = format.tensors()
    assert parts, "tensors() is empty"
    assert all(isinstance(t, Tensor) for t in parts.values()), "tensors() holds something that is no tensor"
    again = format.replace(parts)
    assert type(again) is type(format), f"replace gives a {type(again).__name__}"
    assert all(again.tensors()[name] is tensor for name, tensor in parts.items()), (
        "replace(tensors()) changes tensors"
    )
    copies = {name: tensor.clone() for name, tensor in parts.items()}
    assert_equal(format.replace(copies), format)
    first = next(iter(parts))
    try:
        format.replace({name: tensor for name, tensor in parts.items() if name != first})
    except KeyError as error:
        said = str(error)
    else:
        said = "nothing: it is not refused"
    assert first in said, f"replace without {first!r} says {said}"
    try:
        format.surely_not_a_field = 1  # pyright: ignore[reportAttributeAccessIssue]
    except FrozenInstanceError:
        return
    raise AssertionError("the format can be changed after it is made; declare it @dataclass(frozen=True, eq=False)")


@contract
def spec(format: Format) -> None:
    """``spec`` is JSON, and ``from_spec`` gives an empty format on meta of equal shape, names, sizes and costs."""
    said = json.loads(json.dumps(format.spec()))
    empty = Format.from_spec(said)
    assert type(empty) is type(format), f"from_spec gives a {type(empty).__name__}"
    for name in ("shape", "dtype", "parameters"):
        restored, expected = getattr(empty, name), getattr(format, name)
        assert restored == expected, f"{name} is {restored} after from_spec, {expected} before"
    if format.ndim == 2:
        restored, expected = empty.flops(3), format.flops(3)
        assert restored == expected, f"flops(3) is {restored} after from_spec, not {expected}"
    parts, blank = format.tensors(), empty.tensors()
    assert list(parts) == list(blank), f"from_spec names the tensors {list(blank)}, not {list(parts)}"
    for name, tensor in parts.items():
        restored = (blank[name].shape, blank[name].dtype, blank[name].device.type)
        assert restored == (tensor.shape, tensor.dtype, "meta"), f"from_spec makes {name} as {restored}"
    if len({id(tensor) for tensor in parts.values()}) == len(parts):  # a spec does not say what is shared
        assert empty.nbytes == format.nbytes, f"nbytes is {empty.nbytes} after from_spec, not {format.nbytes}"
    assert empty.spec() == format.spec(), "the spec of what from_spec makes is another"
    assert_equal(empty.replace(parts), format)


@contract
def storage(format: Format) -> None:
    """``tensors`` through a safetensors file and back, into what ``from_spec`` makes."""
    parts = {name: tensor.contiguous().clone() for name, tensor in format.tensors().items()}
    loaded = safetensors.torch.load(safetensors.torch.save(parts))
    assert_equal(Format.from_spec(format.spec()).replace(loaded), format)


@contract
def size(format: Format) -> None:
    """``nbytes`` counts every distinct tensor once: what is shared once, a view as if it were compacted."""
    distinct = {id(tensor): tensor.numel() * tensor.element_size() for tensor in format.tensors().values()}
    whole = sum(distinct.values())
    assert format.nbytes == whole, f"nbytes is {format.nbytes}; the tensors held have {whole} bytes"
    twice = Sum((format, format))
    assert twice.nbytes == whole, f"a sum of a format and itself has nbytes {twice.nbytes}, not {whole}"
    copied = Sum((format, copy.deepcopy(format)))
    assert copied.nbytes == 2 * whole, f"a sum of a format and its copy has nbytes {copied.nbytes}, not {2 * whole}"
    pairs = {name: torch.stack((t, t)) for name, t in format.tensors().items()}
    halves = Sum(tuple([format.replace({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1)]))
    assert halves.nbytes == 2 * whole, f"two halves of one storage have nbytes {halves.nbytes}, not {2 * whole}"
    strided = {name: torch.stack((t, t), -1)[..., 0] for name, t in format.tensors().items()}
    views = format.replace(strided).nbytes
    expected = sum(t.numel() * t.element_size() for t in strided.values())
    assert views == expected, f"views of larger storages count {views} bytes, compacted they take {expected}"


@contract
def cast(format: Format) -> None:
    """``to(dtype)`` casts floats, keeps integers and what the format calls exact, and says so in ``dtype``."""
    exact, before = exactness(format), format.tensors()
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        there = format.to(dtype)
        for name, tensor in there.tensors().items():
            expected = before[name].dtype if exact[name] else dtype
            assert tensor.dtype == expected, f"to({dtype}) gives {name} the dtype {tensor.dtype}, not {expected}"
        assert there.dtype == dtype, f"to({dtype}) says that its dtype is {there.dtype}"
        assert there.to_dense().dtype == dtype, f"to({dtype}).to_dense() has dtype {there.to_dense().dtype}"
        assert there.shape == format.shape, f"to({dtype}) changes the shape to {there.shape}"
    assert format.to(device="meta").device.type == "meta", "to(device='meta') does not move it"
    assert format.to(device="meta").dtype == format.dtype, "to(device=...) changes the dtype"


@contract
def tree(format: Format) -> None:
    """A format is a pytree whose leaves are its tensors, with and without the paths to them."""
    leaves, structure = _pytree.tree_flatten(format)
    parts = format.tensors()
    leaf_ids = {id(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
    assert leaf_ids == {id(tensor) for tensor in parts.values()}, "the leaves of the tree are not the tensors held"
    assert_equal(_pytree.tree_unflatten(leaves, structure), format)
    assert structure == _pytree.tree_structure(format), "two flattenings have structures that differ"
    mapped = _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, format)
    assert type(mapped) is type(format), f"tree_map gives a {type(mapped).__name__}"
    assert_equal(mapped, format)
    paths, _ = _pytree.tree_flatten_with_path(format)
    assert [leaf is other for (_, leaf), other in zip(paths, leaves, strict=True)], "paths lead to other leaves"
    assert len({_pytree.keystr(path) for path, _ in paths}) == len(paths), "two leaves have one path"


@contract
def copies(format: Format) -> None:
    """pickle and deepcopy give equal formats; a deep copy shares no memory; equality is identity."""
    assert_equal(pickle.loads(pickle.dumps(format)), format)
    other = copy.deepcopy(format)
    assert_equal(other, format)
    for name, tensor in format.tensors().items():
        apart = other.tensors()[name].data_ptr() != tensor.data_ptr() or tensor.numel() == 0
        assert apart, f"a deep copy shares the memory of {name}"
    assert len({format, other}) == 2, "two formats of equal numbers count as one; equality must be identity"


def assert_equal(result: Format, expected: Format) -> None:
    """Equal kinds, specs and numbers, bit for bit."""
    assert result.spec() == expected.spec(), f"the specs differ: {result.spec()} and {expected.spec()}"
    for name, tensor in expected.tensors().items():
        assert torch.equal(result.tensors()[name], tensor), f"the numbers of {name} differ"

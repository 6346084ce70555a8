"""Tensors and formats in files, and what each format makes of a tensor."""

import json
import re

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from polyad.data.tensors import read_tensors
from polyad.decompose.ranks import compare_formats as comparison
from polyad.formats import Format, LowRank, Sum, kinds, load_format, save_format
from polyad.quantize import round_to_nearest
from polyad.testing import formats


def seeded(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*kinds(), *formats.variants()])
def test_a_format_comes_back_from_its_file(name, tmp_path):
    known = kinds().get(name)
    made = formats.variants()[name] if known is None else next(iter(formats.examples(known)))
    save_format(made, tmp_path / "one.safetensors")
    found = load_format(tmp_path / "one.safetensors")
    assert json.dumps(found.spec()) == json.dumps(made.spec())
    assert torch.equal(found.to_dense(), made.to_dense())
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_files_of_formats_that_are_something_else(tmp_path):
    made = Sum((LowRank(seeded(4, 1), seeded(1, 3)), LowRank(seeded(4, 2), seeded(2, 3))))
    path = tmp_path / "one.safetensors"
    save_format(made, path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists already; name another file"):
        save_format(made, path)
    assert path.read_bytes() == before
    (tmp_path / "cut.safetensors").write_bytes(before[:-4])
    with pytest.raises(ValueError, match=r"cut.safetensors is not a whole safetensors file"):
        load_format(tmp_path / "cut.safetensors")
    save_file({"x": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no description of a polyad format"):
        load_format(tmp_path / "plain.safetensors")


def test_every_kind_of_file_is_read(tmp_path):
    x = seeded(3, 4)
    numpy.save(tmp_path / "a.npy", x.numpy())
    numpy.savez(tmp_path / "b.npz", one=x.numpy(), two=x.numpy()[0])
    save_file({"w": x}, tmp_path / "c.safetensors")
    Image.fromarray((torch.arange(24).reshape(2, 4, 3) * 10).to(torch.uint8).numpy()).save(tmp_path / "d.png")
    Image.new("P", (4, 2)).save(tmp_path / "e.png")
    assert torch.equal(read_tensors(tmp_path / "a.npy")["a"], x)
    assert {name: tuple(t.shape) for name, t in read_tensors(tmp_path / "b.npz").items()} == {
        "one": (3, 4),
        "two": (4,),
    }
    assert torch.equal(read_tensors(tmp_path / "c.safetensors")["w"], x)
    assert read_tensors(tmp_path / "d.png")["d"][1, 3].tolist() == [210, 220, 230]
    assert read_tensors(tmp_path / "e.png")["e"].shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"1 2 3", r"is of a kind that is not read; known are \.npy"),
        ("a.npy", b"no numbers", "is no NumPy file, whatever its name says"),
        ("a.npy", b"", "is no NumPy file, whatever its name says"),
        ("a.npz", b"no zip", "holds no plain numbers that can be read"),
        ("a.safetensors", b"{}", "is not a whole safetensors file"),
        ("a.png", b"no picture", "is no picture that Pillow reads"),
    ],
)
def test_files_that_cannot_be_read(name, content, said, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_tensors(tmp_path / name.replace(".txt", ".npy"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_tensors(tmp_path / name)


def test_objects_are_not_unpickled(tmp_path):
    numpy.save(tmp_path / "objects.npy", numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="without objects"):
        read_tensors(tmp_path / "objects.npy")


def test_points_keep_what_they_were_asked():
    x = seeded(8, 9) * torch.logspace(0, -4, 9)
    points = comparison.compare_formats(x, ["matrix"], tol=[0.01, 0.3])
    assert [point.asked["tol"] for point in points] == [0.3, 0.01]
    for point in points:
        assert isinstance(point.made, Format)
        assert point.error <= point.asked["tol"]
        assert point.error == pytest.approx(float((point.made.to_dense() - x).norm() / x.norm()), rel=1e-4)
        assert (point.parameters, point.nbytes) == (point.made.parameters, point.made.nbytes)
    assert points[0].nbytes < points[1].nbytes
    (kept,) = comparison.compare_formats(x, ["matrix"], tol=[0.01, 0.3], budget=points[0].nbytes)
    assert kept.asked == {"tol": 0.3}


def test_a_format_that_does_not_suit_says_why():
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    (point,) = comparison.compare_formats(seeded(2, 3, 4), ["matrix"], tol=[0.1], mask=mask)
    assert point.made is None
    assert point.reason == "a matrix with missing entries has two modes, this tensor 3"
    with pytest.raises(ValueError, match="format 'cubic' is not known; choose from matrix"):
        comparison.compare_formats(seeded(2, 3), ["cubic"])


def test_the_command(tmp_path, polyad_command):
    x = torch.outer(torch.arange(1.0, 9), torch.ones(6)) + 0.01 * seeded(8, 6)
    numpy.save(tmp_path / "x.npy", x.numpy())
    _, out, _ = polyad_command("decompose", tmp_path / "x.npy", "--format", "matrix,tucker", "--tol", "0.1",
                         "--out", tmp_path / "small.safetensors", "--json")  # fmt: skip
    said = json.loads(out)
    assert said["shape"] == [8, 6]
    assert [p["format"] for p in said["points"]] == ["matrix", "tucker"]
    assert all(p["error"] <= 0.1 for p in said["points"])
    assert said["saved"]["bytes"] == min(p["bytes"] for p in said["points"])
    found = load_format(tmp_path / "small.safetensors")
    assert float((found.to_dense() - x).norm() / x.norm()) <= 0.1
    code, _, err = polyad_command("decompose", tmp_path / "x.npy", "--out", tmp_path / "small.safetensors")
    assert code == 1
    assert "exists already" in err
    code, out, _ = polyad_command("decompose", tmp_path / "x.npy", "--tol", "0.1,0.5")
    assert code == 0
    assert "8 x 6, 48 numbers" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "three"), r"holds one \(3, 4\), two \(4,\); choose one with --name"),
        ((), "choose one with --name"),
        (("--name", "one", "--tol", "small"), "--tol holds 'small', which is no number"),
        (("--name", "one", "--tol", "2"), "tol=2.0 is not a relative error"),
        (("--name", "one", "--format", "cubic"), "format 'cubic' is not known"),
        (("--name", "two"), "two or more|at least 2"),
    ],
)
def test_what_the_command_refuses(options, said, tmp_path, polyad_command):
    numpy.savez(tmp_path / "b.npz", one=seeded(3, 4).numpy(), two=seeded(4).numpy())
    code, out, err = polyad_command("decompose", tmp_path / "b.npz", *options)
    assert (code, out) == (1, "")
    assert re.search(said, err)


def test_arrays_of_other_machines_and_of_no_numbers(tmp_path):
    numpy.save(tmp_path / "big.npy", numpy.arange(6.0).reshape(2, 3).astype(">f8"))
    assert read_tensors(tmp_path / "big.npy")["big"].tolist() == [[0, 1, 2], [3, 4, 5]]
    numpy.save(tmp_path / "words.npy", numpy.array(["a", "b"]))
    with pytest.raises(ValueError, match="words has dtype <U1, which are no numbers"):
        read_tensors(tmp_path / "words.npy")
    numpy.save(tmp_path / "whole.npy", numpy.ones((30, 20)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut.npy holds no plain numbers that can be read \(.*not fully written"):
        read_tensors(tmp_path / "cut.npy")
    with pytest.raises(ValueError, match="is a folder without pictures; name one file in it"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (numpy.array([[1.0, numpy.nan], [numpy.inf, 1]]), "x.npy holds 1 NaN and 1 infinite numbers; replace them"),
        (numpy.ones((2, 3), dtype=numpy.complex64), "x.npy holds complex numbers; decompose the real"),
        (numpy.full((2, 3), 1e200), "x.npy holds numbers too large for --dtype float32; try --dtype float64"),
        (numpy.ones(3), r"x.npy has shape \(3,\); two or more modes"),
        (numpy.ones((3, 0)), r"x.npy has shape \(3, 0\); two or more modes"),
    ],
)
def test_what_a_file_holds_is_refused_by_its_name(x, said, tmp_path, polyad_command):
    numpy.save(tmp_path / "x.npy", x)
    code, out, err = polyad_command("decompose", tmp_path / "x.npy")
    assert (code, out) == (1, "")
    assert re.search(said, err)


def test_places_and_budgets_that_do_not_do(tmp_path, polyad_command):
    numpy.save(tmp_path / "x.npy", numpy.outer(numpy.arange(1.0, 9), numpy.ones(6)))
    asked = ("decompose", tmp_path / "x.npy", "--format", "Matrix", "--tol", "0.1")
    for extra, said in (
        (("--out", tmp_path / "no" / "x.safetensors"), "there is no folder"),
        (("--out", tmp_path / "x.npz"), "is no .safetensors file"),
        (
            ("--budget", "10", "--out", tmp_path / "a.safetensors"),
            "the smallest, matrix, takes 56; nothing was saved",
        ),
        (("--format", ""), "--format is empty; choose from matrix"),
        (("--device", "sofa"), "--device sofa cannot be computed on here"),
    ):
        code, _, err = polyad_command(*asked, *extra)
        assert code == 1
        assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    code, out, _ = polyad_command(*asked, "--budget", "10")
    assert code == 0
    assert "nothing within 0.1 fits into 10 bytes; the smallest, matrix, takes 56" in out
    assert "smallest within 0.1: matrix, 56 bytes, 14.6 % of the file's" in polyad_command(*asked)[1]


def test_errors_of_huge_numbers_are_numbers():
    x = 1e300 * torch.outer(torch.arange(1.0, 9), torch.ones(6)).double()
    assert comparison.compare_formats(x, ["matrix"], tol=[0.1])[0].error < 1e-12


def test_a_format_goes_where_a_tensor_would():
    one = LowRank(torch.randn(4, 2), torch.randn(2, 3))
    like = torch.zeros(1, dtype=torch.float64)
    for moved, dtype, device in [
        (one.to("meta"), torch.float32, "meta"), (one.to(torch.float16), torch.float16, "cpu"),
        (one.to("meta", torch.float16), torch.float16, "meta"),
        (one.to(torch.float16, "meta"), torch.float16, "meta"),
        (one.to(like), torch.float64, "cpu"), (one.to(dtype=torch.float64, device="meta"), torch.float64, "meta"),
    ]:  # fmt: skip
        assert (moved.dtype, moved.device.type) == (dtype, device)
    codes = round_to_nearest(torch.randn(4, 32), 4, group=32).to("cpu", torch.float16)
    assert codes.codes.dtype == torch.uint8
    with pytest.raises(TypeError, match="goes to a dtype, a device"):
        one.to(2.5)

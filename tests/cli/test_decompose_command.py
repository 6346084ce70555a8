"""``polyad decompose`` as a scientist uses it: a method, named modes, missing entries, any file, a run that ends."""

import json

import numpy
import pytest
import torch
from PIL import Image

from polyad.decompose.ranks import compare_formats as comparison
from polyad.decompose.ranks.point import Point
from polyad.decompose.ranks.rank_search import search_points
from polyad.formats import CP, load_format

SHAPE = (12, 9, 7)


def planted(rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.einsum("ar,br,cr->abc", *(torch.randn(n, rank, generator=generator) for n in SHAPE))


@pytest.fixture
def tensor_file(tmp_path):
    numpy.save(tmp_path / "trial.npy", planted().numpy())
    return tmp_path / "trial.npy"


def test_one_method_names_its_modes_and_saves_factors_beside_the_file(polyad_command, tensor_file, tmp_path):
    code, out, err = polyad_command(
        "decompose", tensor_file, "--method", "cp_als", "--rank", "2", "--modes", "subject,time,channel"
    )
    assert code == 0, err
    assert "subject 12 x time 9 x channel 7, 756 numbers" in out
    assert "factors: subject 12 x 2, time 9 x 2, channel 7 x 2, weights 2" in out
    saved = tmp_path / "trial-cp_als-rank2.npz"
    assert f"saved to {saved}" in out
    with numpy.load(saved, allow_pickle=False) as arrays:
        named = {name: arrays[name] for name in arrays.files}
    again = numpy.einsum("ar,br,cr,r->abc", named["subject"], named["time"], named["channel"], named["weights"])
    numpy.testing.assert_allclose(again, planted().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("method", "names"),
    [("hooi:rank=2", ["core", "mode0", "mode1", "mode2"]), ("tt_svd", ["cores.0", "cores.1", "cores.2"]),
     ("nonnegative_cp:rank=3,update=mu", ["mode0", "mode1", "mode2"])],
)  # fmt: skip
def test_any_decomposition_with_its_arguments(method, names, polyad_command, tmp_path):
    numpy.save(tmp_path / "trial.npy", planted().abs().numpy())
    tol = () if "rank" in method else ("--tol", "0.3")
    code, out, err = polyad_command("decompose", tmp_path / "trial.npy", "--method", method, *tol, "--json")
    assert code == 0, err
    said = json.loads(out)
    with numpy.load(said["saved"]) as arrays:
        assert sorted(arrays.files) == sorted(said["factors"]) == sorted(names)


def test_a_method_saved_as_a_format_is_loaded_again(polyad_command, tensor_file, tmp_path):
    place = tmp_path / "fit.safetensors"
    code, _, err = polyad_command("decompose", tensor_file, "--method", "cp_als:rank=2", "--out", place)
    assert code == 0, err
    torch.testing.assert_close(load_format(place).to_dense(), planted(), atol=1e-4, rtol=1e-4)


REFUSED = [
    (("--method", "cp_als"), "cp_als needs a rank or a relative error; give --rank 5 or --tol 0.1"),
    (("--method", "nmf"), "nmf needs rank; write --method nmf:rank=…"),
    (("--method", "cp_als:rank=2", "--rank", "3"), "--method cp_als:rank=2 and --rank 3 both give a rank; leave one"),
    (("--method", "cp_als:rnak=2"), "cp_als has no argument 'rnak'; did you mean rank?"),
    (("--method", "cp_als", "--tol", "0.1,0.2"), "--method makes one decomposition; give one"),
    (("--rank", "3"), "--rank 3 is for one method; name it too, such as --method cp_als"),
    (("--method", "cp_als", "--rank", "2", "--format", "tt"), "--format and --budget choose among formats"),
    (("--modes", "a,b"), "--modes a,b names 2 modes, the tensor has 3 of sizes 12 x 9 x 7; give one name for each"),
    (("--modes", "a,b,core"), "--modes: 'core' is what decompositions call a part of their own"),
    (("--modes", "a,b,a"), "--modes: 'a' cannot be told apart"),
    (("--missing", "nan"), "trial.npy holds no nan, so nothing is missing; leave --missing out"),
    (("--missing", "none"), "--missing none is neither nan nor a number"),
    (("--method", "cp_als", "--rank", "2", "--out", "a.txt"), "--out a.txt is neither .npz (named factors) nor"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_is_refused_before_any_work(options, said, polyad_command, tensor_file):
    code, out, err = polyad_command("decompose", tensor_file, *options)
    assert (code, out) == (1, "")
    assert said in err
    assert [path.name for path in tensor_file.parent.iterdir() if path.is_file()] == ["trial.npy"]


def test_factors_that_are_there_are_not_overwritten(polyad_command, tensor_file):
    asked = ("decompose", tensor_file, "--method", "cp_als", "--rank", "2")
    assert polyad_command(*asked)[0] == 0
    code, _, err = polyad_command(*asked)
    assert code == 1
    assert "trial-cp_als-rank2.npz exists already; name another file with --out" in err


def test_a_report_draws_a_figure_for_each_mode(polyad_command, tensor_file, tmp_path):
    page = tmp_path / "page.html"
    code, _, err = polyad_command(
        "decompose", tensor_file, "--method", "cp_als:rank=2", "--modes", "subject,time,channel", "--report", page
    )
    assert code == 0, err
    text = page.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert set(data["figures"]) == {"factor0", "factor1", "factor2", "factor3"}
    assert [len(line["y"]) for line in data["figures"]["factor1"]["data"]] == [9, 9]
    assert "<h2 id='factor1-title'>time, 9 x 2</h2>" in text
    code, _, err = polyad_command(
        "decompose", tensor_file, "--format", "matrix,tt", "--report", tmp_path / "all.html"
    )
    assert code == 0, err
    assert "tt, tol 0.03" in (tmp_path / "all.html").read_text()


def test_missing_entries_are_not_read(polyad_command, tmp_path):
    x = planted()
    seen = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) > 0.2
    numpy.save(tmp_path / "holes.npy", torch.where(seen, x, float("nan")).numpy())
    asked = ("decompose", tmp_path / "holes.npy", "--missing", "nan")
    code, out, err = polyad_command(*asked, "--method", "cp_als", "--rank", "2", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["missing"] == int((~seen).sum())
    with numpy.load(said["saved"]) as arrays:
        again = numpy.einsum("ar,br,cr,r->abc", *(arrays[f"mode{i}"] for i in range(3)), arrays["weights"])
    numpy.testing.assert_allclose(again, x.numpy(), atol=1e-3)  # also where nothing was seen
    code, out, _ = polyad_command(*asked, "--tol", "0.3", "--format", "tt,tucker")
    assert "of them missing" in out
    assert "tt: takes no missing entries; matrix, tucker, cp do" in out
    code, _, err = polyad_command(*asked, "--method", "tt_svd", "--tol", "0.1")
    assert "tt_svd takes no missing entries; cp_als, gcp" in err
    numpy.save(tmp_path / "coded.npy", torch.where(seen, x, -99.0).numpy())
    code, out, err = polyad_command(
        "decompose", tmp_path / "coded.npy", "--missing", "-99", "--format", "cp", "--tol", "0.01", "--json"
    )
    assert json.loads(out)["points"][0]["rank"] == 2


def test_every_file_says_how_it_was_understood(polyad_command, tmp_path):
    from scipy.io import savemat

    (tmp_path / "scores.csv").write_text("name,a,b,c\nx,1,2,3\ny,4,5,6.5\n")
    (tmp_path / "places.tns").write_text("# a comment\n1 1 1 2.0\n3 2 2 4.0\n1 1 1 1.0\n")
    savemat(tmp_path / "run.mat", {"signal": planted().numpy(), "note": "words"})
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(3):
        Image.fromarray((planted(seed=i)[:, :, 0] * 9 + 99).to(torch.uint8).numpy()).save(folder / f"{i}.png")
    frames = [Image.new("L", (5, 4), 40 * i) for i in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    for name, words in {
        "scores.csv": "row 2 x column 3, 6 numbers, 48 bytes; rows and columns of numbers, the header left out, and "
        "the words of name left out",
        "places.tns": "12 numbers, 96 bytes; 3 coordinates counted from 1, zeros elsewhere (16.7 % filled)",
        "run.mat": "run.mat: 12 x 9 x 7, 756 numbers",
        "faces": "picture 3 x height 12 x width 9, 324 numbers, 324 bytes; pictures of grey values",
        "film.gif": "frame 3 x height 4 x width 5",
    }.items():
        code, out, err = polyad_command("decompose", tmp_path / name, "--format", "matrix", "--tol", "0.3")
        assert code == 0, err
        assert words in out


FILES = {
    "a.csv": ("1,2\n3\n", "row 2 of "),
    "b.csv": ("1,2\n3,x\n", "row 2, column 2 of "),
    "c.tns": ("0 1 2\n", "they are counted from 1"),
    "d.tns": ("1 1 2\n1 2\n", "line 2 of "),
    "e.tns": ("99999 99999 9999 1\n", "sparse_cp_als takes a sparse tensor"),
    "f.mat": ("no file", "is no MATLAB file that SciPy reads"),
    "g.mp4": ("no film", "is no film that PyAV reads|needs PyAV"),
    "h.xyz": ("?", "is of a kind that is not read; known are .npy, .npz"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_understood(name, polyad_command, tmp_path):
    content, said = FILES[name]
    (tmp_path / name).write_text(content)
    code, out, err = polyad_command("decompose", tmp_path / name)
    assert (code, out) == (1, "")
    assert any(part in err for part in said.split("|"))


def test_the_matrix_of_three_modes_is_the_unfolding_of_fewest_numbers(polyad_command, tmp_path):
    generator = torch.Generator().manual_seed(1)
    x = torch.einsum(
        "br,rac->abc", torch.randn(9, 2, generator=generator), torch.randn(2, 12, 7, generator=generator)
    )
    points = comparison.compare_formats(x, ["matrix"], tol=[0.01])
    assert points[0].asked["rows"] == (1,)
    assert points[0].parameters == 2 * (9 + 12 * 7)
    assert points[0].error < 1e-5
    assert points[0].made.shape == (12, 9, 7)
    numpy.save(tmp_path / "x.npy", x.numpy())
    code, out, err = polyad_command("decompose", tmp_path / "x.npy", "--format", "matrix", "--modes", "a,b,c")
    assert code == 0, err
    assert "tol 0.01, rows b" in out


def test_that_nothing_is_smaller_is_said_first(polyad_command, tmp_path):
    pixels = (torch.rand(20, 20, 6, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    numpy.save(tmp_path / "noise.npy", pixels.numpy())
    code, out, err = polyad_command("decompose", tmp_path / "noise.npy", "--format", "matrix,tt", "--tol", "0.9,0.01")
    assert code == 0, err
    last = out.splitlines()[-1]
    assert last.startswith("nothing within 0.01 is smaller than the file; the smallest, ")
    assert "Of what is smaller, " in last


def fit(seconds, error):
    """A made-up format of ranks: its time grows with the rank, its error falls as stated."""

    def solve(rank):
        return Point("cp", {"rank": rank}, None, error(rank), seconds * rank)

    return solve


def test_a_rank_search_finds_the_smallest_rank_once_for_all_tolerances():
    tried = []

    def solve(rank):
        tried.append(rank)
        return Point("cp", {}, None, 1 / rank, 0.0)

    points = list(search_points("cp", solve, [0.3, 0.1, 0.01], 50, None))
    assert [point.asked.get("rank") for point in points] == [4, 10, None]
    assert len(tried) == len(set(tried))
    assert "no rank at which it would be smaller than the tensor (up to 50) comes within 0.01" in points[2].reason


def test_a_search_that_would_take_too_long_is_left_out_by_name():
    solve = fit(0.1, lambda rank: 0.2 + 1 / rank)  # the error stays above 0.2
    points = list(search_points("cp", solve, [0.5, 0.1], 5000, 60.0))
    assert points[0].asked == {"tol": 0.5, "rank": 4}
    assert points[1].left_out
    assert points[1].reason.startswith("left out, foreseen to take about 68 seconds (ranks up to")
    (whole,) = search_points("cp", fit(0.001, lambda rank: 0.2 + 1 / rank), [0.1], 50, 60.0)
    assert not whole.left_out


def test_what_is_left_out_is_named_and_thorough_takes_it(polyad_command, tensor_file, monkeypatch):
    monkeypatch.setattr("polyad.decompose.ranks.compare_formats.machine_rate", lambda x: 1.0)
    asked = ("decompose", tensor_file, "--format", "tucker", "--tol", "0.1")
    code, out, _ = polyad_command(*asked)
    assert code == 0
    assert "tucker: left out, foreseen to take " in out
    assert "a tolerance; --thorough takes it" in out
    assert "smallest within 0.1: tucker" in polyad_command(*asked, "--thorough")[1]


def test_lines_appear_when_they_are_known(polyad_command, tensor_file, monkeypatch):
    def interrupted(x, names, **more):
        yield Point("tt", {"tol": 0.1}, CP.random((3, 3), generator=torch.Generator()), 0.05, 0.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "format_points", interrupted)
    code, out, _ = polyad_command("decompose", tensor_file)
    assert code == 130
    assert out.splitlines()[-1].startswith("tt      tol 0.1")

"""A user's own measure: from Python and from a file, alone and beside the original, its faults told."""

import json
from pathlib import Path

import pytest
import torch

import polyad
import tiny
from polyad.evaluation import Measure
from polyad.evaluation.measure import beside, measured_values

EXAMPLES = Path(__file__).parents[2] / "examples"
MINE = """
import torch
from words import TEXT

def accuracy(model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt").input_ids[:, :60]
    return (model(ids).logits[0, :-1].argmax(-1) == ids[0, 1:]).float().tolist()

def weight(model, tokenizer):
    return next(model.parameters()).norm()

def broken(model, tokenizer):
    return tokenizer.nothing

def pairs(model, tokenizer):
    return torch.ones(2, 2)

def words(model, tokenizer):
    return "good"

def nan(model, tokenizer):
    return float("nan")
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "words.py").write_text(f"TEXT = {tiny.PART.joined()[:600]!r}\n")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "other"
    tiny.model(seed=1).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_verdict_is_paired_over_examples():
    measure = Measure("m", lambda model, tokenizer: 0)
    base = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    noise = 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(1)).double()
    better = beside(measure, base + 0.05 + noise, base)
    assert better.verdict == "better"  # the difference is clear although the examples differ by far more
    assert better.error == pytest.approx(float((0.05 + noise).std()) / 200**0.5)
    assert beside(Measure("m", measure.function, larger=False), base + 0.05 + noise, base).verdict == "worse"
    assert beside(measure, base + noise, base).verdict == "no clear difference"
    single = beside(measure, values(0.7).mean(), values(0.6).mean())
    assert (single.verdict, single.error, single.examples) == (None, None, None)
    few = beside(measure, values(1, 1, 0.9), values(0, 0, 0.2))  # Student's t with two degrees of freedom
    assert few.verdict == "better"
    assert beside(measure, values(1, 0.2, 0.3), values(0, 0, 0)).verdict == "no clear difference"
    with pytest.raises(ValueError, match="gave 3 numbers for the model and 2 for the original"):
        beside(measure, values(1, 2, 3), values(1, 2))


def test_from_python_without_a_text(tiny_folder, other_folder):
    model, other = polyad.load(tiny_folder), polyad.load(other_folder)
    model.train()

    def training(one, tokenizer):
        assert not one.training
        assert not torch.is_grad_enabled()
        return [float(one.lm_head.weight.norm()), tokenizer.vocab_size]

    result = polyad.evaluate(model, measure=training, original=other)
    assert model.training
    assert result.perplexity == {}
    assert result.measure.name == "training"
    assert result.measure.value == pytest.approx((float(model.lm_head.weight.norm()) + 500) / 2)
    with pytest.raises(ValueError, match="there is nothing to measure; give a text such as 'stdlib', or measure="):
        polyad.evaluate(model)
    with pytest.raises(TypeError, match=r"measure is a int; give a function of \(model, tokenizer\)"):
        polyad.evaluate(model, measure=3)


def test_evaluate_takes_a_file(polyad_command, tiny_folder, other_folder, mine):
    code, out, err = polyad_command("evaluate", tiny_folder, "--measure", f"{mine}:accuracy", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["perplexity"] == {}
    assert said["measure"]["examples"] == 59
    assert said["measure"]["verdict"] is None
    code, out, err = polyad_command(
        "evaluate", tiny_folder, "--original", other_folder, "--measure", f"{mine}:weight", "--smaller"
    )
    assert code == 0, err
    assert "smaller is better" in out
    assert "–" in out  # one number has no error
    code, out, err = polyad_command(
        "evaluate", tiny_folder, "--original", tiny_folder, "--measure", f"{mine}:accuracy"
    )
    assert "accuracy: no clear difference from the original" in out


FAULTS = [
    ("mine.py", "names no function of a file; write --measure my_measure.py:accuracy"),
    ("nowhere.py:accuracy", "there is no file"),
    ("mine.py:acuracy", "has no function acuracy; it has accuracy, weight, broken, pairs, words, nan"),
    ("mine.py:broken", "the measure broken stopped: mine.py, line 13: AttributeError"),
    (
        "mine.py:pairs",
        "the measure pairs gave numbers of shape (2, 2); return one number, or a list of one an example",
    ),
    ("mine.py:words", "the measure words gave a str; return one number"),
    ("mine.py:nan", "the result of the measure nan"),
    ("wrong.py:f", "--measure: wrong.py, line 2: NameError: name 'torhc' is not defined"),
]


@pytest.mark.parametrize(("name", "said"), FAULTS)
def test_faults_are_told_by_the_users_own_line(name, said, polyad_command, tiny_folder, mine):
    mine.with_name("wrong.py").write_text("import math\ntorhc.ones(2)\n")
    code, out, err = polyad_command("evaluate", tiny_folder, "--measure", mine.parent / name)
    assert (code, out) == (1, "")
    assert said in err


QUICK = ("--text", "stdlib", "--windows", 1)


def test_a_comparison_puts_the_front_by_the_measure(polyad_command, tiny_folder, mine):
    asked = ("compare", tiny_folder, "--methods", "rtn:bits=2,group=16;rtn:bits=8,group=16", *QUICK)
    code, out, err = polyad_command(*asked, "--measure", f"{mine}:weight", "--smaller", "--json")
    assert code == 0, err
    points = json.loads(out)
    assert all(point["measure"]["original"] > 0 for point in points)
    small, large = sorted(points, key=lambda point: point["compressed"]["bytes"]["total"])
    assert small["pareto"]
    assert large["pareto"] == (large["measure"]["value"] < small["measure"]["value"])
    code, out, err = polyad_command(*asked, "--measure", f"{mine}:accuracy")
    assert "accuracy: larger is better, the original's is" in " ".join(out.split())
    assert out.count("rtn:bits=") >= 2
    assert "accuracy no clear difference from the original" in out


def test_compress_and_adapt_put_it_into_their_records(polyad_command, tiny_folder, tiny_text, mine, tmp_path):
    code, out, err = polyad_command(
        "compress", tiny_folder, "--method", "rtn:bits=4,group=16", "--out", tmp_path / "small", *QUICK,
        "--alternations", 0, "--measure", f"{mine}:accuracy", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["measure"]["examples"] == 59
    asked = ("adapt", tiny_folder, "--data", tiny_text, "--steps", 2, "--length", 32, "--windows", 1)
    code, out, err = polyad_command(
        *asked, "--adapter", "lora:rank=2", "--out", tmp_path / "tuned", "--measure", f"{mine}:accuracy", "--json"
    )
    assert code == 0, err
    record = json.loads(out)["measure"]
    assert (record["examples"], record["larger"]) == (59, True)
    assert json.loads((tmp_path / "tuned" / "training.json").read_text())["measure"] == record
    code, _, err = polyad_command(
        *asked, "--compare", "lora;dora", "--out", tmp_path / "both", "--measure", f"{mine}:accuracy"
    )
    assert code == 1
    assert "--measure goes with one --adapter; measure each adapter of a comparison with polyad evaluate" in err


def test_a_fault_costs_no_compression(polyad_command, tiny_folder, mine, tmp_path):
    code, _, err = polyad_command(
        "compress", tiny_folder, "--method", "rtn:bits=4", "--out", tmp_path / "small", "--measure", f"{mine}:broken"
    )
    assert code == 1
    assert "the measure broken stopped" in err
    assert not (tmp_path / "small").exists()


def test_the_worked_examples_run(polyad_command, tiny_folder, tmp_path):
    code, out, err = polyad_command(
        "evaluate", tiny_folder, "--measure", EXAMPLES / "measure_extraction.py:exact_match"
    )
    assert code == 0, err
    assert "12" in out
    encoder = tiny.small_model("BertModel", vocab_size=500, num_key_value_heads=2)
    encoder.save_pretrained(tmp_path / "encoder")
    tiny.tokenizer().save_pretrained(tmp_path / "encoder")
    code, out, err = polyad_command("evaluate", tmp_path / "encoder", "--measure",
                                    EXAMPLES / "measure_encoder.py:accuracy", "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["measure"]["examples"] == 24


def test_the_extraction_counts_what_is_right():
    module = {}
    exec((EXAMPLES / "measure_extraction.py").read_text(), module)

    class Tokenizer:
        def __call__(self, text, return_tensors):
            return type("Batch", (), {"input_ids": torch.tensor([[ord(c) for c in text]])})

        def decode(self, ids, skip_special_tokens):
            return "".join(chr(i) for i in ids)

    class Reader:
        device = "cpu"

        def generate(self, ids, **more):
            sentence = "".join(chr(i) for i in ids[0]).rsplit("Sentence: ", 1)[1]
            year = next(part.strip(".,") for part in sentence.split() if part.strip(".,").isdigit())
            return torch.cat([ids, torch.tensor([[ord(c) for c in f" {year}\n"]])], 1)

    assert module["exact_match"](Reader(), Tokenizer()) == [1.0] * 12


def test_one_number_has_no_dimension(tiny_folder):
    model = polyad.load(tiny_folder)
    assert measured_values(Measure("m", lambda model, tokenizer: 3), model).ndim == 0

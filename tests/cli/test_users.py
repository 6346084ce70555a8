"""Three users in an empty folder: an engineer with a model, one who fine-tunes, one who tries every wrong word."""

import io
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import polyad
import tiny
from polyad.adapters import Adapters, LoRA
from polyad.allocate import uniform
from polyad.cli.progress import progress_line
from polyad.data import Calibration

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
CARD = "---\nlicense: mit\nlanguage:\n- en\ntags:\n- other\n---\n# The base\n"


@pytest.fixture
def base(tmp_path, monkeypatch):
    """An empty folder to work in, and the name of a model in it, with a card and a chat template."""
    folder = tmp_path / "work" / "base"
    tiny.model().save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder.parent / "topics.txt").write_text(tiny.PART.joined(), encoding="utf-8")
    monkeypatch.chdir(folder.parent)
    return "base"


QUICK = ("--text", "topics.txt", "--windows", "1", "--alternations", "0")


def test_an_engineer_takes_a_smaller_model_away(polyad_command, base):
    code, out, err = polyad_command("compress", base, *QUICK)  # nothing else is chosen
    assert (code, "error" in err) == (0, False)
    assert "saved to base-small\nload it with polyad.load('base-small'); plain transformers does" in out
    card = Path("base-small/README.md").read_text()
    assert card.startswith(
        "---\nlicense: mit\nlanguage:\n- en\nlibrary_name: polyad\ntags:\n- polyad\n- compressed\n---\n"
    )
    for said in (
        "`base` made smaller by round_to_nearest (bits=8, group=32)",
        "model = polyad.load('base-small')",
        "| bytes, selected | 46,080 |",
        "polyad compress base --text topics.txt --windows 1",
        "The licence is the base's: mit. The base's own card is in README.base.md.",
    ):
        assert said in card
    assert Path("base-small/README.base.md").read_text() == CARD
    assert "loading base" in err
    code, out, err = polyad_command("compress", "--config", "base-small/run.toml", "--out", "again", "--quiet")
    assert (code, err) == (0, "")
    one, two = (polyad.load(folder).state_dict() for folder in ("base-small", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    asked = tomllib.loads(Path("again/run.toml").read_text())
    assert (asked["command"], asked["out"], asked["windows"]) == ("compress", "again", 1)
    assert asked["method"] == "rtn:bits=8,group=32"  # that was left open the first time


def test_a_model_that_plain_transformers_loads(polyad_command, base):
    how = ("--keep", "0.8", "--plain", "--calibrate", "topics.txt", "--calibration-windows", "1", *QUICK)
    code, out, _ = polyad_command("compress", base, "--method", "modegpt:rules=mlp", "--out", "small", *how)
    assert code == 0
    assert "plain transformers loads it: LlamaForCausalLM.from_pretrained('small')" in out
    model = AutoModelForCausalLM.from_pretrained("small")
    assert model.config.intermediate_size < 48
    ids = tiny.ids()
    torch.testing.assert_close(model(ids).logits, polyad.load("small")(ids).logits)
    assert "library_name: transformers" in Path("small/README.md").read_text()
    for method, said in (("modegpt", "--method modegpt:rules=mlp"), ("lord", "modegpt:rules=mlp, or leave --plain")):
        code, _, err = polyad_command("compress", base, "--method", method, "--out", "other", *how)
        assert code == 1
        assert said in err


def test_a_researcher_takes_an_adapter_away(polyad_command, base):
    how = ("--data", "topics.txt", "--steps", "2", "--windows", "1", "--length", "16")
    code, _, err = polyad_command(
        "adapt", base, "--adapter", "lora:rank=2", "--trained", "lm_head,*norm*", "--out", "mine", *how
    )
    assert (code, "error" in err) == (0, False)
    stated = json.loads(Path("mine/polyad.json").read_text())
    assert "lm_head" in stated["trained"]
    card = Path("mine/README.md").read_text()
    assert "An adapter of `base`: lora (rank=2), with lm_head, model.layers.0.input_layernorm, " in card
    assert "| held-out loss, topics" in card
    assert "Adapters(model).load('mine')" in card
    code, out, _ = polyad_command("merge", base, "merged", "--adapter", "mine")
    assert (code, "plain transformers loads it" in out) == (0, True)
    assert "`base` with an adapter in its weights (mine)." in Path("merged/README.md").read_text()
    code, _, err = polyad_command("adapt", base, "--adapter", "lora:rank=2", "--as", "peft", "--out", "theirs", *how)
    assert (code, "error" in err) == (0, False)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "theirs")
    code, out, _ = polyad_command("evaluate", base, "--adapter", "theirs", "--text", "topics.txt", "--windows", "1")
    assert code == 0
    assert model.peft_config["default"].r == 2
    code, _, err = polyad_command("adapt", base, "--adapter", "dora:rank=2", "--as", "peft", "--out", "other", *how)
    assert (code, "peft holds low-rank updates, and DoRA makes others" in err) == (1, True)


def test_a_conversation(polyad_command, base, monkeypatch):
    code, out, _ = polyad_command(
        "generate", base, "hello", "--chat", "--tokens", "4", "--json", "--dtype", "float32"
    )
    (question, answer) = json.loads(out)["messages"]
    assert (code, question) == (0, {"role": "user", "content": "hello"})
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nand then?\n"))
    code, out, _ = polyad_command("generate", base, "--chat", "--tokens", "4", "--dtype", "float32")
    assert code == 0
    assert out.startswith(answer["content"])
    code, _, err = polyad_command("generate", base)
    assert (code, err) == (1, "error: there is no text to continue; give one, or --chat for a conversation\n")


WRONG = [
    ("compress", "--method", "modegpt:rule=mlp", "did you mean rules? It takes keep, ridge=1.0, rules=mlp-qk-vo"),
    ("compress", "--method", "lord:rules=qk", "lord has no argument 'rules'; it takes rank, centre=False"),
    ("compress", "--method", "svd:x=1", "svd has no argument 'x'; it takes rank=None, tol=None"),
    ("compress", "--method", "modgpt", "is called 'modgpt'; did you mean modegpt?"),
    ("compress", "--method", "svd", "svd needs to know how much to keep: keep=0.8, or a size of its own"),
    ("compress", "--keep", "0.8", "--keep 0.8 needs a method that it sizes; write --method modegpt --keep 0.8"),
    ("compress", "--method", "svd", "--keep", "8", "keep=8.0 is not a share; give a number above 0 and up to 1"),
    ("compress", "--method", "svd", "--keep", "0.8", "--allocate", "gredy", "called 'gredy'; did you mean greedy?"),
    ("cache", "--methods", "kivi:bit=4", "kivi has no argument 'bit'; did you mean bits?"),
    ("cache", "--methods", "plain;kivvi", "no cache codec is called 'kivvi'; did you mean kivi?"),
    ("adapt", "--out", "o", "--adapter", "lora:r=8", "lora has no argument 'r'; did you mean rank? It takes rank=8"),
    ("adapt", "--out", "o", "--adapter", "lroa", "no adapter is called 'lroa'; did you mean lora"),
    ("adapt", "--out", "o", "--adapter", "lora", "--as", "pfet", "--as pfet is not known; choose polyad or peft"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: " ".join(wrong[:-1]))
def test_a_wrong_word_is_answered_in_a_sentence_before_any_model_is_loaded(polyad_command, wrong):
    *words, said = wrong
    code, out, err = polyad_command(words[0], "no-such-model", *words[1:])
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.split()) <= 60
    assert err.count("\n") == 1


def test_what_a_file_says_wrongly(polyad_command, base):
    Path("run.toml").write_text('command = "compress"\nkeeep = 0.8\n')
    code, _, err = polyad_command("compress", base, "--config", "run.toml")
    assert code == 1
    assert err.endswith("run.toml says keeep, which polyad compress does not take; did you mean keep?\n")
    code, _, err = polyad_command("evaluate", base, "--config", "run.toml")
    assert (code, "is of another command than polyad evaluate" in err) == (1, True)
    code, _, err = polyad_command("evaluate", base, "--config", "other.toml")
    assert (code, "--config other.toml is not there" in err) == (1, True)


def test_where_an_error_comes_from_is_shown_with_debug_alone(polyad_command):
    code, _, err = polyad_command("compress", "m", "--method", "modgpt")
    assert (code, "Traceback" in err) == (1, False)
    code, _, err = polyad_command("compress", "m", "--method", "modgpt", "--debug")
    assert (code, "Traceback" in err) == (1, True)


def test_a_hub_name_without_a_network_says_what_to_do(polyad_command):
    code, _, err = polyad_command("evaluate", "nobody/no-such-model", "--text", "stdlib", "--quiet")
    assert (code, err.count("\n")) == (1, 1)
    assert "no network" in err or "offline" in err
    assert "folder" in err


def test_a_comparison_counts_its_points(polyad_command, base):
    how = ("--keep", "0.9,0.8", "--calibrate", "topics.txt", "--calibration-windows", "1", *QUICK)
    code, _, err = polyad_command("compare", base, "--methods", "svd;rtn:bits=8", *how)
    assert code == 0
    assert "point 1 of 3, loading base" in err
    assert "point 3 of 3, " in err


def test_lines_of_progress_say_how_long():
    assert progress_line("curves", 3, 4, 6.0) == "curves: 3 of 4, about 2 s left"
    assert progress_line("curves", 1, 31, 10.0) == "curves: 1 of 31, about 5 min left"
    assert progress_line("curves", 7, None, 10.0) == "curves: 7 done"


def test_python_answers_in_the_same_words():
    model = tiny.model()
    host = Adapters(model)
    for call, said in (
        (lambda: polyad.plan(model, "svd", keep="0.8"), "keep='0.8' is a str and no number; write keep=0.8"),
        (lambda: polyad.plan(model, "svd"), "svd needs to know how much to keep: keep=0.8, or a size of its own"),
        (
            lambda: polyad.plan(model, "svd", keep=0.8, allocate="gredy"),
            "no allocation is called 'gredy'; did you mean g",
        ),
        (
            lambda: host.attach("a", "*q_proj", LoRA, r=8),
            "lora has no argument 'r'; did you mean rank? It takes rank=8",
        ),
        (
            lambda: host.attach("a", "*q_proj", "lora", r=8),
            "lora has no argument 'r'; did you mean rank? It takes ra",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=re.escape(said)) as told:
            call()
        assert len(str(told.value).split()) <= 60
    greedy = polyad.plan(model, "svd", keep=0.8, allocate="uniform")
    assert greedy.sizes == polyad.plan(model, "svd", keep=0.8, allocate=uniform).sizes
    text = Calibration(tiny.ids(2, 16), tiny.ids(1, 16), {"ids": "0"})
    assert polyad.plan(model, "rtn:bits=4+eora:rank=4", calibrate=text).keep is None
    assert host.attach("a", "*q_proj", "lora", rank=2)

"""Every command: one JSON value and nothing else, exit codes, and sentences for what cannot be done."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaConfig, MambaForCausalLM, RwkvConfig, RwkvForCausalLM

import polyad
import tiny
from polyad import cli
from polyad.cli import output


@pytest.fixture
def quick(tiny_text):
    """Options that keep a run short."""
    return ("--calibrate", tiny_text, "--text", tiny_text, "--calibration-windows", 8, "--windows", 2,
            "--alternations", 0)  # fmt: skip


def value(said):
    """The one JSON value on standard output; strict about NaN."""
    return json.loads(said, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_inspect(polyad_command, tiny_folder):
    code, out, err = polyad_command("inspect", tiny_folder, "--json")
    found = value(out)
    assert (code, err) == (0, "")
    assert found["blocks"] == {"mlp": 3, "qk": 3, "vo": 3}
    assert found["parameters"]["selected"] == 23040
    assert sum(layer["count"] for layer in found["layers"]) == 21
    code, out, _ = polyad_command("inspect", tiny_folder)
    assert code == 0
    assert "23,040" in out


def test_methods_and_claims(polyad_command):
    code, out, _ = polyad_command("methods", "--json", "--kind", "allocate")
    assert code == 0
    assert {"greedy", "uniform"} <= {card["name"] for card in value(out)}
    code, out, _ = polyad_command("methods")
    assert code == 0
    code, out, _ = polyad_command("claims", "--json")
    assert code == 0
    assert isinstance(value(out), list)
    code, out, err = polyad_command("methods", "--kind", "magic", "--json")
    assert (code, out) == (1, "")
    assert "no method is of kind 'magic'; the kinds are" in err


def test_evaluate(polyad_command, tiny_folder, tiny_text):
    told = ("evaluate", tiny_folder, "--text", tiny_text, "--windows", 2)
    code, out, _ = polyad_command(*told, "--original", tiny_folder, "--json")
    found = value(out)
    assert code == 0
    assert found["perplexity"]["topics"]["ratio"] == pytest.approx(1.0)
    assert found["agreement"] == {"kl": 0.0, "top1": 1.0}
    code, out, _ = polyad_command(*told)
    assert code == 0
    assert "topics" in out


def test_generate(polyad_command, tiny_folder):
    told = ("generate", tiny_folder, "the [bold]import statement", "--tokens", 5)
    code, out, _ = polyad_command(*told, "--json")
    found = value(out)
    assert code == 0
    assert found["tokens"] <= 5
    code, out, _ = polyad_command(*told)
    assert (code, out.rstrip("\n")) == (0, found["prompt"] + found["text"].rstrip("\n"))
    drawn = [value(polyad_command(*told, "--sample", "--seed", 3, "--json")[1])["text"] for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_generate_says_how_fast_and_by_which_loop(polyad_command, tiny_folder):
    threads = torch.get_num_threads()
    told = ("generate", tiny_folder, "the import statement", "--tokens", 5, "--json", "--dtype", "float32")
    try:
        by_loop = value(polyad_command(*told, "--threads", 1)[1])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    by_codec = value(polyad_command(*told, "--cache", "kivi:bits=8")[1])
    assert by_loop["text"] == by_codec["text"]
    assert (by_loop["loop"], by_loop["reason"], by_loop["threads"]) == ("polyad", None, 1)
    assert (by_codec["loop"], by_codec["reason"]) == ("polyad", None)
    for record in (by_loop, by_codec):
        assert record["dtype"] == "float32"
        assert 0 < record["milliseconds_per_token"] <= 1000 * record["seconds"]
        assert record["prefill_tokens_per_second"] > 0
    code, _, err = polyad_command(*told[:-1], "float31")
    assert (code, "dtype 'float31' is not known" in err) == (1, True)


def test_generate_shows_the_text_on_a_terminal_as_it_is_made(polyad_command, tiny_folder, monkeypatch):
    told = ("generate", tiny_folder, "the import statement", "--tokens", 12)
    plain = polyad_command(*told)[1].rstrip("\n")
    pieces = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("polyad.cli.generate.write_piece", lambda terminal, text: pieces.append(text))
    code, out, _ = polyad_command(*told)
    assert (code, out.strip()) == (0, "")
    assert pieces[0] == "the import statement"
    assert len(pieces) > 2
    assert "".join(pieces).rstrip("\n") == plain


def test_cache(polyad_command, tiny_folder, tiny_text, tmp_path):
    ways = "plain;kivi:bits=8,group=8,window=0;metric:rank=4,window=0"
    told = ("cache", tiny_folder, "--methods", ways, "--context", 40, "--scored", 8, "--windows", 2, "--text",
            tiny_text, "--calibrate", tiny_text)  # fmt: skip
    code, out, _ = polyad_command(*told, "--alternations", 0, "--budget", 200, "--json")
    found = value(out)
    assert code == 0
    plain, kivi, metric = found["caches"]
    assert plain["perplexity"]["topics"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert [record["version"] for record in found["caches"]] == [1, 1, 1]
    assert plain["bytes_per_token"] == 3 * 2 * 16 * 4
    assert kivi["bytes_per_token"] < metric["bytes_per_token"] < plain["bytes_per_token"]
    assert found["recommended"] == "kivi:bits=8,group=8,window=0"
    assert plain["decode_seconds"] is None
    page = tmp_path / "caches.html"
    code, out, err = polyad_command(*told, "--alternations", 1, "--budget", 10, "--report", page)
    assert code == 1
    assert "perplexity" in out
    assert "no cache fits in 10 bytes a token" in err
    written = page.read_text(encoding="utf-8")
    assert "Caches after 40 tokens" in written
    assert "perplexity on topics" in written
    code, _, err = polyad_command(*told, "--report", tmp_path)
    assert (code, "is a folder; name a file in it" in err) == (1, True)


def test_generate_with_a_cache(polyad_command, tiny_folder):
    told = ("generate", tiny_folder, "the import statement", "--tokens", 5, "--json")
    plain = value(polyad_command(*told)[1])
    kivi = value(polyad_command(*told, "--cache", "kivi:bits=8")[1])
    assert plain["text"] == kivi["text"]  # all tokens are in the window
    code, _, err = polyad_command(*told, "--cache", "svd:rank=2")
    assert code == 1
    assert "svd is of kind decomposition, not cache codec" in err
    code, _, err = polyad_command(*told, "--cache", "kivi:bats=2")
    assert code == 1
    assert "kivi has no argument 'bats'; did you mean bits?" in err


def test_generate_uses_the_cache_of_a_model_whose_settings_say_that_it_has_none(polyad_command, tmp_path):
    answers = []
    for use in (True, False):  # as training with checkpoints leaves it
        model = tiny.model()
        model.generation_config.use_cache = model.config.use_cache = use
        model.generation_config.eos_token_id = None
        polyad.save(model, tmp_path / str(use), tokenizer=tiny.tokenizer())
        told = ("generate", tmp_path / str(use), "the import statement", "--tokens", 8, "--json")
        answer = value(polyad_command(*told, "--cache", "kivi:bits=8,group=8,window=2")[1])
        answers.append((answer["text"], answer["cache_bytes"]))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["mistral", "mamba", "rwkv"])
def test_generate_goes_on_where_a_codec_has_nothing_to_hold(polyad_command, tmp_path, kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 500, "eos_token_id": 0}
    if kind == "mistral":
        model = tiny.model("mistral")
    elif kind == "mamba":
        model = MambaForCausalLM(MambaConfig(state_size=4, **sizes))
    else:
        model = RwkvForCausalLM(RwkvConfig(**sizes))
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    told = ("generate", tmp_path, "the import statement", "--tokens", 5, "--json")
    code, out, err = polyad_command(*told)
    plain = value(out)
    assert (code, plain["loop"], "sliding" in err) == (0, "polyad" if kind == "mistral" else "transformers", False)
    assert (plain["cache_bytes"] is None) == (kind != "mistral")
    code, out, err = polyad_command(*told, "--cache", "metric:rank=2,bits=4")
    assert (code, value(out)["text"]) == (0, plain["text"])
    assert len([line for line in err.splitlines() if "its cache is the plain one" in line]) == 1
    code, _, err = polyad_command("cache", tmp_path, "--methods", "plain;kivi:bits=4")
    assert (code, "nothing to compress" in err or "of its own kind" in err) == (1, True)


def test_compress_and_what_it_leaves(polyad_command, tiny_folder, tmp_path, quick):
    folder = tmp_path / "out"
    code, out, _ = polyad_command("compress", tiny_folder, "--method", "modegpt", "--keep", 0.7, "--out", folder,
                                  *quick, "--json")  # fmt: skip
    found = value(out)
    assert code == 0
    assert found["compressed"]["parameters"]["selected"] <= 0.7 * 23040 + 1
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["out"]
    code, out, _ = polyad_command("generate", folder, "the import", "--tokens", 3, "--json")
    assert (code, value(out)["tokens"]) == (0, 3)
    code, out, err = polyad_command("compress", tiny_folder, "--method", "modegpt", "--keep", 0.7, "--out", folder)
    assert (code, out) == (1, "")
    assert "already holds something; choose another folder" in err
    code, _, err = polyad_command("compress", folder, "--method", "rtn:bits=4", "--out", tmp_path / "twice", *quick)
    assert code == 0
    both = polyad.load(tmp_path / "twice")
    assert type(both.model.layers[0].mlp.up_proj.weight()).__name__ == "Quantized"
    assert torch.isfinite(tiny.logits(both)).all()


def test_compress_prints_a_table(polyad_command, tiny_folder, tmp_path, quick):
    code, out, _ = polyad_command(
        "compress", tiny_folder, "--method", "rtn:bits=4", "--out", tmp_path / "out", *quick
    )
    assert code == 0
    assert "perplexity" in out
    assert "saved to" in out
    assert "load it with polyad.load(" in " ".join(out.split())


def test_compare(polyad_command, tiny_folder, quick):
    told = ("compare", tiny_folder, "--methods", "rtn:bits=4;lord:rank=99", "--keep", "0.8", *quick)
    code, out, _ = polyad_command(*told, "--json")
    points = value(out)
    assert code == 0
    assert [p["error"] is None for p in points] == [True, False]
    code, out, _ = polyad_command(*told)
    assert code == 0
    assert "failed" in out
    code, out, err = polyad_command("compare", tiny_folder, "--methods", "lord:rank=99", *quick, "--json")
    assert code == 1
    assert len(value(out)) == 1
    assert "every point failed, the first with: rank=99 exceeds" in err


def bad_weights(number):
    def harm(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = number
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return harm


def larger_tokenizer(folder):
    large = tiny.tokenizer()
    large.add_tokens(["one more"])
    large.save_pretrained(folder)


def short(folder):
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


HARM = {
    "NaN": (
        bad_weights(float("nan")),
        "model.layers.1.mlp.up_proj.weight of shape (48, 32) holds 1 numbers that are NaN",
    ),
    "infinite": (
        bad_weights(float("inf")),
        "model.layers.1.mlp.up_proj.weight of shape (48, 32) holds 1 numbers that are NaN or infinite",
    ),
    "tokenizer": (larger_tokenizer, "the tokenizer knows 501 tokens and the model's embedding has 500 rows"),
    "truncated": (short, "cannot be read"),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json: it is not a model's folder"),
}


@pytest.mark.parametrize("harm", HARM)
def test_harmed_models(polyad_command, tiny_folder, tmp_path, quick, harm):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    HARM[harm][0](folder)
    code, out, err = polyad_command("compress", folder, "--method", "lord", "--keep", 0.7, "--out", tmp_path / "out",
                                    *quick, "--json")  # fmt: skip
    assert (code, out) == (1, "")
    assert HARM[harm][1] in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


ASKED = {
    "pattern": (("--select", "*.nothing"), "the pattern '*.nothing' matches none of the model's 22 Linear modules"),
    "keep 0": (("--keep", "0"), "keep=0.0 is not a share"),
    "keep 1.5": (("--keep", "1.5"), "keep=1.5 is not a share; give a number above 0 and up to 1"),
    "out of reach": (("--keep", "0.001"), "keep=0.001 of the parameters cannot be met"),
    "codes": (("--method", "rtn"), "a number in few bits still counts as one; count bytes instead"),
    "unit": (("--budget", "euros"), "budget='euros' is not a unit"),
    "dtype": (("--dtype", "float12"), "dtype 'float12' is not known; choose one of float32"),
    "allocation": (("--allocate", "gready"), "did you mean greedy"),
    "no allocation": (("--allocate", "svd"), "svd is of kind decomposition, not allocation"),
    "an allocation's argument": (("--allocate", "uniform:temperature=1"), "uniform has no argument 'temperature'"),
    "a temperature": (("--allocate", "block_influence:temperature=hot"), "temperature='hot' is no number"),
    "method": (("--method", "mode_gpt"), "rule for blocks or rescaling is called 'mode_gpt'; did you mean modegpt?"),
    "argument": (("--method", "lord:rang=3"), "lord has no argument 'rang'; did you mean rank? It takes rank"),
    "half an argument": (("--method", "lord:rank"), "'rank' in 'lord:rank' is not an argument; write lord:arg"),
    "size": (("--method", "rtn:bits=four"), "round_to_nearest: bits='four' is no number"),
    "allocation as a method": (("--method", "greedy"), "greedy is of kind allocation, not decomposition"),
    "nowhere": (("--text", "nowhere.txt"), "no text at 'nowhere.txt'; give a file"),
    "nothing": (("--calibrate", ","), "no text was named"),
    "device": (("--device", "abacus"), "device='abacus' cannot be used here"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_bad_requests(polyad_command, tiny_folder, tmp_path, quick, name):
    more, sentence = ASKED[name]
    keep = () if name == "size" else ("--keep", 0.7)
    code, out, err = polyad_command("compress", tiny_folder, "--method", "lord", *keep, "--out", tmp_path / "out",
                                    *quick, *more, "--json")  # fmt: skip
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


TEXTS = {
    "empty": (b"\n \n", "is empty; give a file"),
    "short": (b"only a few words", "fewer than one window of 64; give a longer text"),
    "no text": (bytes(range(256)) * 9, "is not text: byte 128 is not UTF-8"),
}


@pytest.mark.parametrize("option", ["--text", "--calibrate"])
@pytest.mark.parametrize("name", TEXTS)
def test_bad_texts(polyad_command, tiny_folder, tmp_path, quick, name, option):
    content, sentence = TEXTS[name]
    (tmp_path / "bad.txt").write_bytes(content)
    code, out, err = polyad_command("compress", tiny_folder, "--method", "lord", "--keep", 0.7, "--out",
                                    tmp_path / "out", *quick, option, tmp_path / "bad.txt", "--json")  # fmt: skip
    assert (code, out) == (1, "")
    assert sentence in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--methods", ";"), "--methods ';' names no method"),
        (("--methods", "lord;rtn:bits"), "'bits' in 'rtn:bits' is not an argument"),
        (("--methods", "lord;nothing-like-it"), "rescaling is called 'nothing-like-it'"),
        (("--methods", "lord", "--keep", "0.8;0.7"), "--keep '0.8;0.7' is not a list of shares"),
        (("--methods", "lord", "--keep", ","), "is not a list of shares; write --keep 0.9,0.8"),
        (("--methods", "lord", "--keep", "0.8,2"), "--keep=2.0 is not a share"),
    ],
)
def test_malformed_comparisons(polyad_command, tiny_folder, arguments, sentence):
    code, out, err = polyad_command("compare", tiny_folder, *arguments, "--json")
    assert (code, out) == (1, "")
    assert sentence in err


@pytest.mark.parametrize(
    "arguments",
    [("evaluate", "m", "--windows", "0"), ("compress", "m", "--method", "lord", "--out", "o", "--alternations", "-1"),
     ("compress", "m", "--method", "lord", "--out", "o", "--calibration-windows", "0"), ("nonsense",),
     ("generate", "m", "p", "--tokens", "many"), ("compare", "m")],
)  # fmt: skip
def test_usage_errors_exit_with_2(polyad_command, arguments):
    code, out, err = polyad_command(*arguments)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("generate", "{}", "", "--json"), "the prompt is empty"),
     (("generate", "{}", "x", "--tokens", "0"), "--tokens 0 is below 1"),
     (("inspect", "nobody/nothing"), "'nobody/nothing' is no folder here, nothing of it is in the hub's cache"),
     (("inspect", "/no/such/place"), "there is no model at /no/such/place"),
     (("claims", "nothing"), "nothing")],
)  # fmt: skip
def test_other_commands_say_what_is_wrong(polyad_command, tiny_folder, arguments, sentence):
    code, out, err = polyad_command(*(str(a).format(tiny_folder) for a in arguments))
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err


def test_weights_that_are_not_numbers_are_named_by_every_command(polyad_command, tiny_text, tmp_path):
    model = tiny.model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "ill")
    tiny.tokenizer().save_pretrained(tmp_path / "ill")
    for told in (
        ("evaluate", tmp_path / "ill", "--text", tiny_text, "--windows", 1),
        ("generate", tmp_path / "ill", "x"),
    ):
        code, out, err = polyad_command(*told)
        assert (code, out) == (1, "")
        assert "model.layers.1.mlp.up_proj.weight of shape (48, 32) holds 1 numbers that are NaN or infinite" in err


def test_a_full_disk_leaves_nothing(polyad_command, tiny_folder, tmp_path, quick, monkeypatch):
    told = ("compress", tiny_folder, "--method", "rtn:bits=4", "--out", tmp_path / "out", *quick, "--json")
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=9))
    code, out, err = polyad_command(*told)
    assert (code, out) == (1, "")
    assert "0 MB are free; nothing was written" in err
    monkeypatch.setattr(shutil, "disk_usage", real)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyad.models.shards.save_file", full)
    code, out, err = polyad_command(*told)
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(MemoryError(), "there is not enough memory"), (KeyError("x"), "nothing is called 'x'"),
     (PermissionError(13, "Permission denied", "/here"), "Permission denied: /here"),
     (ValueError("about [model.layers] and [/bold]"), "about [model.layers] and [/bold]"),
     (RuntimeError(), "RuntimeError")],
)  # fmt: skip
def test_errors_become_sentences(polyad_command, monkeypatch, error, sentence):
    def fails():
        raise error

    monkeypatch.setattr(cli, "app", fails)
    code, out, err = polyad_command("inspect")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {sentence}")


def test_an_interrupted_command_says_what_is_kept(polyad_command, tiny_folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("polyad.models.load", interrupted)
    assert polyad_command("inspect", tiny_folder) == (
        130, "", "stopped; nothing half done is left behind; the same command begins again\n",
    )  # fmt: skip
    monkeypatch.setattr("polyad.compress.run.write_compressed", interrupted)
    code, out, err = polyad_command("compress", tiny_folder, "--method", "rtn:bits=8", "--out", tmp_path / "out")
    assert (code, out) == (130, "")
    assert "stopped; finished statistics are kept" in err


def test_numbers_that_json_lacks_are_null(capsys):
    output.emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": ("x", None)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": ["x", None]}


def test_the_store_and_the_seed_are_those_asked_for(polyad_command, tiny_folder, tmp_path, quick):
    for number in range(2):
        code, out, _ = polyad_command(
            "compress", tiny_folder, "--method", "equivalent_rescaling+lord:rank=4", "--out", tmp_path / str(number),
            *quick, "--seed", 7, "--store", "float32", "--json",
        )  # fmt: skip
        assert code == 0
        assert value(out)["store"] == "float32"
    first, second = (polyad.load(tmp_path / str(n)) for n in range(2))
    assert first.dtype == torch.float32
    assert torch.equal(tiny.logits(first), tiny.logits(second))

"""The command as a whole: how light it is, and the commands around the others: merge, report, a method's page."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import polyad
from polyad.adapters import Adapters, LoRA


def run_light(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compress", "--help"], ["methods", "--help"]])
def test_help_and_version_load_neither_torch_nor_transformers(arguments):
    code = (
        f"import sys; sys.argv = ['polyad', *{arguments!r}]\n"
        "from polyad import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "print('LOADED', sorted({'torch', 'transformers', 'numpy', 'plotly'} & set(sys.modules)))"
    )
    said = run_light(code)
    assert said.endswith("LOADED []")
    assert (polyad.__version__ if arguments == ["--version"] else "Usage") in said


def test_the_package_runs_as_a_module():
    said = subprocess.run(
        [sys.executable, "-m", "polyad", "--version"], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == polyad.__version__


def test_every_public_name_is_there_without_an_import_of_its_part():
    code = "import polyad\nprint([name for name in polyad.__all__ if getattr(polyad, name) is None])"
    assert run_light(code) == "[]"
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        polyad.magic  # noqa: B018
    assert set(polyad.__all__) <= set(dir(polyad))


@pytest.mark.parametrize("order", ["import polyad, transformers", "import transformers, polyad"])
def test_transformers_knows_compressed_folders_whichever_is_imported_first(order):
    code = (
        f"{order}\nfrom transformers import LlamaForCausalLM\n"
        "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING\nprint('polyad' in AUTO_QUANTIZER_MAPPING)"
    )
    assert run_light(code) == "True"


def test_the_catalogue_is_whole_after_the_import_of_one_part():
    code = "import polyad.formats, polyad\nprint(len(polyad.methods()), polyad.card('kivi').kind)"
    assert run_light(code) == f"{len(polyad.methods())} codec"


def test_a_method_is_described(polyad_command):
    code, out, err = polyad_command("methods", "rtn")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    for part in ("round_to_nearest (quantize)", "group", "polyad compress MODEL --method round_to_nearest:bits="):
        assert part in said
    code, out, _ = polyad_command("methods", "kivi", "--json")
    (card,) = json.loads(out)
    assert (code, card["name"], card["kind"]) == (0, "kivi", "codec")
    code, out, err = polyad_command("methods", "kivvi")
    assert (code, out) == (1, "")
    assert "did you mean kivi" in err


def test_merge_writes_a_model_that_needs_no_adapter(polyad_command, tiny_folder, tmp_path):
    model = polyad.load(tiny_folder)
    host = Adapters(model)
    host.attach("mine", "*_proj", LoRA, rank=2)
    for parameter in host.parameters("mine"):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    host.save("mine", tmp_path / "adapter")
    tokens = torch.arange(1, 9)[None]
    expected = model(tokens).logits
    arguments = ("merge", tiny_folder, tmp_path / "out", "--adapter", tmp_path / "adapter")
    code, out, err = polyad_command(*arguments)
    assert (code, err) == (0, "")
    assert "the adapter is in the weights of 21 layers" in out
    assert "plain transformers loads it: LlamaForCausalLM.from_pretrained(" in out
    torch.testing.assert_close(polyad.load(tmp_path / "out")(tokens).logits, expected, rtol=1e-4, atol=1e-5)
    code, _, err = polyad_command(*arguments)
    assert code == 1
    assert "already" in err
    (tmp_path / "out" / "run.toml").unlink()  # a kill after the model was saved: what is written last is not there
    (tmp_path / "out" / "README.md").unlink()
    saved = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    code, out, err = polyad_command(*arguments)
    assert (code, err) == (0, "")
    assert "polyad merge" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == saved
    (tmp_path / "out" / "run.toml").unlink()
    host.save("mine", tmp_path / "another")
    for other in ((*arguments, "--store", "float16"), (*arguments[:-1], tmp_path / "another")):
        code, _, err = polyad_command(*other)
        assert (code, "already" in err) == (1, True), "what was asked otherwise is not finished"
    with torch.no_grad():
        next(iter(host.parameters("mine"))).add_(1)  # trained further: the folder holds what it was before
    shutil.rmtree(tmp_path / "adapter")
    host.save("mine", tmp_path / "adapter")
    code, _, err = polyad_command(*arguments)
    assert (code, "already" in err) == (1, True)


def test_a_report_is_made_of_what_was_printed(polyad_command, tiny_folder, tiny_text, tmp_path):
    printed = tmp_path / "caches.json"
    code, out, _ = polyad_command(
        "cache", tiny_folder, "--methods", "plain;kivi:bits=4,group=8", "--text", tiny_text, "--calibrate", tiny_text,
        "--context", 32, "--scored", 4, "--windows", 1, "--alternations", 0, "--json",
    )  # fmt: skip
    assert code == 0
    printed.write_text(out)
    code, out, err = polyad_command("report", printed, tmp_path / "page.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "kivi:bits=4,group=8" in page
    assert "Version of torch" in page


@pytest.mark.parametrize("text", ["{}", "[]", "7", "[1]", '{"caches": [{"method": 3}]}', '{"spelled": "lora"}', "{"])
def test_a_report_of_anything_else_is_refused(polyad_command, tmp_path, text):
    (tmp_path / "value.json").write_text(text)
    code, out, err = polyad_command("report", tmp_path / "value.json", tmp_path / "page.html")
    assert (code, out) == (1, "")
    assert "printed with --json" in " ".join(err.split())
    assert not (tmp_path / "page.html").exists()

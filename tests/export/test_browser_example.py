"""The browser example on a tiny encoder, in headless Chromium with onnxruntime-web from npm."""

import functools
import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch
import transformers

import polyad
from polyad.export import export
from polyad.quantize import round_to_nearest

pytestmark = pytest.mark.browser
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "browser"
WEB = "onnxruntime-web@1.30.0"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
TEXTS = ("A cat sleeps on the sofa.", "Über naïve Katzen, 42!", "an unknownword", "the cat")
WORDS = (
    "a",
    "cat",
    "sleep",
    "##s",
    "on",
    "the",
    "sofa",
    ".",
    ",",
    "!",
    "uber",
    "na",
    "##ive",
    "kat",
    "##zen",
    "4",
    "##2",
    "an",
)


def encoder():
    """A small encoder at 4 bits with a tokenizer of BERT's kind."""
    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS))}
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    model = transformers.BertModel(transformers.BertConfig(**shape, vocab_size=len(vocabulary))).eval()
    model.to(torch.bfloat16).to(torch.float32)  # so that floats are stored in bfloat16
    polyad.apply(model, polyad.plan(model, functools.partial(round_to_nearest, bits=4, group=32)))
    model.polyad_origin = polyad.models.Origin("tiny", None, tokenizer)
    return model, tokenizer


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of a server with the example and two models: one in a file, one with its numbers beside it."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("index.html", "encoder.js"):
        shutil.copy(EXAMPLE / name, folder / name)
    model, tokenizer = encoder()
    export(model, folder / "model", "onnx", accuracy_level=1)
    export(model, folder / "parted", "onnx", accuracy_level=1, max_file_size=20_000)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder / "npm"), WEB]
    subprocess.run(install, check=True, capture_output=True)
    (folder / "ort").mkdir()
    for file in (folder / "npm" / "node_modules" / "onnxruntime-web" / "dist").glob("ort*"):
        if file.name == "ort.min.js" or (file.name.startswith("ort-wasm-simd-threaded.") and file.suffix != ".map"):
            shutil.copy(file, folder / "ort" / file.name)
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", model, tokenizer
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that writes nothing of what it is asked for."""

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    browser.set_script_timeout(120)
    yield browser
    browser.quit()


def opened(driver, address):
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(address)
    ready = "return document.documentElement.dataset.ready"
    WebDriverWait(driver, 120).until(lambda _: driver.execute_script(ready) == "yes")


def in_browser(driver, folder, script):
    """What an encoder of this folder gives in the page; the error's words where it gives none."""
    lines = (
        "const [texts, done] = arguments;",
        f"loadEncoder('{folder}').then(async (encoder) => {{",
        f"  const out = []; for (const t of texts) out.push({script}); done(out);",
        "}).catch((error) => done(String(error)));",
    )
    return driver.execute_async_script("\n".join(lines), list(TEXTS))


def test_the_page_compares_sentences(driver, site):
    opened(driver, site[0] + "/index.html")
    lines = driver.find_element("id", "answer").text.splitlines()
    assert len(lines) == 3, lines
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)


@pytest.mark.parametrize("folder", ["model", "parted"])
def test_tokens_and_embeddings_are_the_models(folder, driver, site):
    address, model, tokenizer = site
    opened(driver, address + "/index.html")
    assert in_browser(driver, folder, "encoder.tokens(t)") == [tokenizer(text).input_ids for text in TEXTS]
    ours = in_browser(driver, folder, "await encoder.embed(t)")
    for text, embedded in zip(TEXTS, ours, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert torch.allclose(torch.tensor(embedded), mean / mean.norm(), atol=1e-4), text


def test_a_missing_model_is_said(driver, site):
    opened(driver, site[0] + "/index.html")
    assert "nowhere/tokenizer.json is not there" in in_browser(driver, "nowhere", "1")

"""The measuring protocol text-1, and texts that are none."""

import hashlib

import pytest
import torch

import polyad
import tiny
from polyad.data import Calibration, Text, calibration, digest, evaluation, read, split, stdlib, windows

LONG = "a paragraph that is long enough to count as a repeat when it comes again"


def test_repeated_paragraphs_are_dropped_and_short_ones_stay():
    text = Text(
        "t", (("a", f"Title\n\n{LONG}\n \t\nbody of a"), ("b", f"Title\n\n\n\n{LONG}\n\n{LONG}\n\nbody of b"))
    )
    joined = text.joined()
    assert joined.count(LONG) == 1
    assert joined.count("Title") == 2
    assert f"Title\n\n{LONG}\n\nbody of a" in joined


def test_the_first_in_reading_order_keeps_a_repeat_and_names_order_the_result():
    names = sorted("abcdef", key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    joined = Text("t", tuple((n, f"body of {n}") for n in "abcdef")).joined()
    assert joined.split("\n\n") == [f"body of {n}" for n in names]
    twice = Text("t", tuple((n, LONG + "\n\nend of " + n) for n in "abcdef")).joined()
    assert LONG + "\n\nend of a" in twice


def test_the_first_seventy_percent_calibrate():
    parts = split(Text("t", (("a", "x" * 1001),)), lambda text: [ord(c) for c in text])
    assert (len(parts.calibration), len(parts.evaluation)) == (700, 301)
    assert parts.calibration.dtype == torch.int64


@pytest.mark.parametrize(("count", "length", "tokens"), [(3, 10, 100), (10, 10, 100), (4, 7, 31), (50, 8, 1000)])
def test_windows_do_not_overlap_and_are_spread_evenly(count, length, tokens):
    found = windows(torch.arange(tokens), length, count)
    starts = found[:, 0]
    assert torch.equal(found, starts[:, None] + torch.arange(length))
    assert len(found) == min(count, tokens // length)
    gaps = starts.diff()
    assert int(gaps.min()) >= length
    assert int(gaps.max() - gaps.min()) <= 1
    assert int(starts[0]) == 0
    assert int(found[-1, -1]) == tokens - 1


def test_one_window_and_too_few_tokens():
    assert windows(torch.arange(9), 4, 1).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="the text 'x' has 3 tokens here, fewer than one window of 4"):
        windows(torch.arange(3), 4, 1, name="the text 'x'")
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        windows(torch.arange(9), 4, 0)
    with pytest.raises(ValueError, match="length=1 must be at least 2"):
        windows(torch.arange(9), 1, 2)


def test_the_digest_is_that_of_little_endian_numbers():
    ids = torch.tensor([[1, 2], [3, 400]])
    raw = b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 400))
    assert digest(ids) == hashlib.sha256(raw).hexdigest()
    assert digest(ids.int()) == digest(ids)
    assert digest(ids + 1) != digest(ids)


def test_texts_are_read_from_files_and_folders(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "inner" / "a.txt").write_text("Grüße", encoding="utf-8")
    assert read(tmp_path / "b.txt") == Text("b", (("b.txt", "second"),))
    assert read(tmp_path).documents == (("b.txt", "second"), ("inner/a.txt", "Grüße"))
    assert read("stdlib") == stdlib()


BAD = {
    "empty.txt": (b" \n ", r"empty\.txt is empty; give a file with some thousands of words"),
    "latin.txt": ("Grüße".encode("latin-1"), r"latin\.txt is not text: byte 2 is not UTF-8"),
    "zeros.txt": (b"a\x00b", "holds NUL bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_text(name, tmp_path):
    content, sentence = BAD[name]
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(ValueError, match=sentence):
            read(source)


def test_texts_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYAD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no text at 'nothing'; give a file .* stdlib, sotu"):
        read("nothing")
    with pytest.raises(FileNotFoundError, match=r"has no \*\.txt file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="`make data`"):
        read("sotu")
    assert polyad.data.at_hand() == ["stdlib"]


def test_windows_for_a_model_have_its_context_and_tokenizer(tiny_folder, tiny_text):
    model = polyad.load(tiny_folder)
    found = calibration(model, tiny_text, count=10)
    assert found.windows.shape == (10, 64)
    assert found.probe.shape == (2, 64)
    assert found.digests == {"topics": digest(found.windows)}
    assert calibration(model, found) is found
    held = evaluation(model, [tiny_text, tiny.PART.__class__("other", tiny.PART.documents[:3])], count=4)
    assert {name: tuple(w.shape) for name, w in held.items()} == {"topics": (4, 64), "other": (4, 64)}
    both = calibration(model, [tiny_text, Text("other", tiny.PART.documents[:3])], count=7, length=16)
    assert both.windows.shape == (8, 16)
    assert both.probe.shape == (2, 16)
    assert isinstance(both, Calibration)


def test_calibration_never_sees_what_evaluates(tiny_folder, tiny_text):
    model = polyad.load(tiny_folder)
    parts = polyad.data.calibration.__globals__["splits"](model, tiny_text)[0]
    every = calibration(model, tiny_text, count=10_000).windows
    assert every[-1, -1] == parts.calibration[-1]
    assert torch.equal(evaluation(model, tiny_text, count=1)["topics"][0], parts.evaluation[:64])


def test_bad_lists_of_texts(tiny_folder, tiny_text, tmp_path):
    model = polyad.load(tiny_folder)
    short = tmp_path / "short.txt"
    short.write_text("only a few words")
    with pytest.raises(
        ValueError, match=r"the evaluation part of 'short', its last 30 %, has .* fewer than one window of 64"
    ):
        evaluation(model, short)
    with pytest.raises(ValueError, match=r"the text 'short' has .* give a longer text"):
        calibration(model, short)
    with pytest.raises(ValueError, match="no text is given"):
        calibration(model, [])
    with pytest.raises(ValueError, match=r"two texts are called alike \(topics, topics\)"):
        evaluation(model, [tiny_text, tiny_text])

"""The list of all that the package says is up to date, and its sentences keep the rules of the house."""

import ast

import messages
import pytest

REFUSALS = [
    (path, words)
    for path, said in messages.messages().items()
    if not path.startswith(messages.SILENT)
    for name, words in said
    if name in ("ValueError", "TypeError", "FileNotFoundError", "FileExistsError", "ImportError")
]
MOST_WORDS = 60


def test_the_list_of_messages_is_up_to_date():
    kept = messages.FILE.read_text(encoding="utf-8")
    assert kept == messages.as_text(), (
        "run make docs, or python tests/house/messages.py, and read what changed as a user would"
    )


def test_refusals_are_sentences():
    assert len(REFUSALS) > 500
    short = [(path, words) for path, words in REFUSALS if len(words.split()) < 4 and words.count("{…}") < 2]
    long = [(path, words) for path, words in REFUSALS if len(words.split()) > MOST_WORDS]
    closed = [(path, words) for path, words in REFUSALS if words.endswith((".", "!"))]
    assert not short, "a refusal says what is wrong and what to do"
    assert not long, "a refusal is read at one glance"
    assert not closed, "a refusal is followed by nothing and has no full stop"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('raise ValueError(f"rank={rank} is " "too large")', [("ValueError", "rank={…} is too large")]),
        ('raise ValueError("a" + str(x) + " is b")', [("ValueError", "a{…} is b")]),
        ('warnings.warn("this is slow", stacklevel=2)', [("warn", "this is slow")]),
        ('why = "it has one layer only"', [("text", "it has one layer only")]),
        ('def f():\n    """A docstring of six words here."""', []),
        ('Paper("A, B, C, D", 1936, "A title of some words", "arXiv:1")', []),
        ("raise error", []),
    ],
)
def test_sentences_are_read_from_code(code, said):
    assert list(messages.sentences(ast.parse(code))) == said

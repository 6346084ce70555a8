"""Every method of the catalogue, held to the contract of its kind, and the checker held to toys."""

import importlib
import pkgutil

import pytest
import torch
from torch import nn

import polyad
from polyad._card import Card, Paper, _catalogue, method, methods
from polyad.formats import Format, LowRank
from polyad.testing import methods as contract
from polyad.train import Schedule

MODULES = [m.name for m in pkgutil.walk_packages(polyad.__path__, "polyad.") if not m.name.endswith("__main__")]


def test_every_entry_of_the_catalogue_keeps_its_kinds_contract():
    for name in MODULES:
        importlib.import_module(name)
    for card in methods():
        for check in contract.CHECKS:
            check(card)


PAPER = Paper(
    "Eckart, Young", 1936, "The approximation of one matrix by another of lower rank", "doi:10.1007/BF02288367"
)


def card(kind, function, papers=(PAPER,), makes=None):
    return Card(function.__name__, kind, function, makes, papers)


def svd(x: torch.Tensor, rank: int | None = None, *, tol: float | None = None) -> LowRank:
    """The best approximation.

    >>> 1 + 1
    2
    """


def untyped(x, rank=None): ...
def positional(x: torch.Tensor, rank: int, tol: float) -> LowRank: ...
def renamed(tensor: torch.Tensor, rank: int) -> LowRank: ...
def synonym(x: torch.Tensor, rank: int, *, n_iter: int = 3) -> LowRank: ...
def dense(x: torch.Tensor, rank: int) -> torch.Tensor: ...
def starred(x: torch.Tensor, *rank: int) -> LowRank: ...
def undrawn(model: object) -> dict[str, int]: ...
def counted(items: list, budget: float, *, count: str = "bytes") -> dict[str, int]: ...
def of_model(model: nn.Module, *, batch: int = 1) -> float: ...
def of_nothing(*, batch: int = 1) -> float: ...
def abstract(x: torch.Tensor, bits: int, *, group: int = 64) -> Format: ...
def problem(a: torch.Tensor, b: torch.Tensor, rank: int = 2, *, eps: float = 0.1) -> torch.Tensor: ...
def loose(a: torch.Tensor, b: torch.Tensor, eps: float = 0.1) -> torch.Tensor: ...
def short(x: torch.Tensor, rows: int, *, generator: object = None) -> torch.Tensor: ...
def fixed(x: torch.Tensor, rows: int) -> torch.Tensor: ...


class Momentum:
    def init(self, param): ...
    def update(self, grad, state, param): ...


class Backwards:
    def init(self, param): ...
    def update(self, param, state, grad): ...


class Added(nn.Module):
    def update(self, base): ...
    def forward(self, x, y, base): ...


class NoModule:
    def update(self, base): ...
    def forward(self, x, y, base): ...


class Idle:
    pass


class Reading:
    def __init__(self, width: int): ...
    def state_dict(self): ...
    def load_state_dict(self, state): ...


def make_momentum(decay: float) -> Momentum: ...


@pytest.mark.parametrize(
    "good",
    [
        card("decompose", svd), card("decompose", svd, makes=LowRank), card("allocate", counted),
        card("measure", of_model), card("quantize", abstract), card("transform", Momentum),
        card("transform", make_momentum), card("adapter", Added), card("solve", problem), card("sketch", short),
        card("operation", of_model), card("operation", Reading), card("stream", Reading), card("schedule", Schedule),
    ],
    ids=lambda card: card.name,
)  # fmt: skip
def test_good_signatures_pass(good):
    contract.signature(good)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (card("decompose", untyped), "not annotated"),
        (card("decompose", positional), r"\(x, rank, tol\), not \(x, \[rank\]\)"),
        (card("decompose", renamed), r"\(tensor, rank\)"),
        (card("decompose", synonym), "called 'max_iter' everywhere"),
        (card("decompose", dense), "not a Format"),
        (card("decompose", starred), r"takes \*args"),
        (card("decompose", svd, makes=type("Other", (), {})), "card says that it makes Other"),
        (card("rescale", undrawn), r"lacks the keyword-only arguments \['generator'\]"),
        (card("measure", of_nothing), "or the positional arguments"),
        (card("transform", Backwards), "Backwards.update takes"),
        (card("transform", Idle), "no method init"),
        (card("adapter", NoModule), "is no torch.nn.Module"),
        (card("schedule", Idle), "no method start"),
        (card("stream", Momentum), "no method state_dict"),
        (card("solve", of_nothing), r"\(\), not \(problem, \[rank\]\)"),
        (card("solve", loose), r"\(a, b, eps\), not \(a, b, \[rank\]\)"),
        (card("solve", untyped), "not annotated"),
        (card("sketch", fixed), r"lacks the keyword-only arguments \['generator'\]"),
        (card("operation", starred), r"takes \*args"),
        (card("codec", Momentum), "no method encode"),
        (card("transform", untyped), "neither a class nor"),
    ],
    ids=lambda value: value.name if isinstance(value, Card) else "",
)
def test_bad_signatures_are_named(bad, said):
    with pytest.raises(AssertionError, match=said):
        contract.signature(bad)


def test_papers_and_examples_are_required():
    contract.papers(card("decompose", svd))
    contract.documentation(card("decompose", svd))
    with pytest.raises(AssertionError, match="cites no paper"):
        contract.papers(card("decompose", svd, papers=()))
    with pytest.raises(AssertionError, match="write doi"):
        contract.papers(card("decompose", svd, papers=(Paper("A", 2000, "B", "https://example.org"),)))
    with pytest.raises(AssertionError, match="has no docstring"):
        contract.documentation(card("decompose", dense))
    with pytest.raises(AssertionError, match="has no docstring"):
        contract.documentation(card("transform", Idle))


@pytest.mark.parametrize("card", methods(), ids=lambda card: card.name)
def test_a_method_says_which_keywords_it_has(card):
    with pytest.raises(TypeError, match=rf"^{card.function.__name__} has no argument 'rnk'; .*[iI]t takes"):
        card.function(rnk=3)


def raises_within(x, rank):
    """Raises an error of a type, which is nothing of the call's."""
    return torch.zeros(rank) @ x


def test_calls_that_do_not_fit_are_refused_in_a_sentence():
    cp = polyad.decompose.tt_svd
    x = torch.zeros(3, 4, 5)
    for call, said in {
        "missing": (lambda: cp(), "tt_svd needs x; it takes x, rank=None"),
        "twice": (lambda: cp(x, x=x), "tt_svd was given x twice: by its place and by its name"),
        "places": (lambda: cp(x, 2, 3, 4), "tt_svd was given 4 values by place and takes 2 so: x, rank; name"),
    }.values():
        with pytest.raises(TypeError, match=said):
            call()
    within = method("solve", papers=(Paper("A", 2000, "B", "doi:1"),))(raises_within)
    try:
        with pytest.raises(TypeError) as caught:
            within(x, rank="3")
        assert "raises_within" not in str(caught.value)
    finally:
        _catalogue.pop("raises_within")

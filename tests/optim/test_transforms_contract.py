"""Every transform and subspace of the catalogue, held to the public contracts; good and wrong ones of our own."""

import pytest
import torch

import polyad.optim  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.testing import methods as cards
from polyad.testing import subspaces, transforms

PAPER = Paper("Nobody", 2000, "Nothing", "arXiv:0")


def card(kind, function, **example):
    return Card(function.__name__, kind, function, None, (PAPER,), example)


class Momentum:
    """Steepest descent with momentum: the direction grows with the gradient."""

    def __init__(self, decay=0.9):
        self.decay = decay

    def init(self, param):
        return {"mean": torch.zeros_like(param, dtype=torch.promote_types(param.dtype, torch.float32))}

    def update(self, grad, state, param):
        state["mean"].mul_(self.decay).add_(grad, alpha=1 - self.decay)
        return state["mean"].clone()


class Dithered(Momentum):
    """Signs of the noisy mean; where the noise is at stands in the state."""

    def __init__(self, generator=None):
        super().__init__(0.5)
        self.seed = generator.initial_seed()

    def init(self, param):
        return {**super().init(param), "seed": self.seed, "count": 0}

    def update(self, grad, state, param):
        state["count"] += 1
        noise = torch.Generator().manual_seed(1000 * state["seed"] + state["count"])
        mean = super().update(grad, state, param)
        return mean.sign() * (torch.rand(mean.shape, generator=noise) < 0.5)


class Orthogonal(Momentum):
    """The polar factor of a matrix gradient, and the sign of a vector's."""

    def update(self, grad, state, param):
        mean = super().update(grad, state, param)
        if mean.ndim < 2:
            return mean.sign()
        u, s, vh = torch.linalg.svd(mean.flatten(1), full_matrices=False)
        present = (s > 1e-6 * s[0]).to(mean)
        return ((u * present) @ vh).view(param.shape)


GOOD = [
    card("transform", Momentum, scale=1, lr=0.3), card("transform", Dithered, scale=0),
    card("transform", Orthogonal, scale=0, decay=0.5),
]  # fmt: skip


class Dense:
    """Leading left singular vectors."""

    def __init__(self, rank=2):
        self.rank = rank

    def refresh(self, g, basis=None):
        return torch.linalg.svd(torch.nan_to_num(g.double() / g.abs().max().double()))[0][:, : self.rank].to(g.dtype)

    def down(self, g, basis):
        return basis.mT @ g

    def up(self, y, basis):
        return basis @ y

    def transport(self, state, old, new):
        turn = new.mT @ old
        mean = turn @ state["mean"]
        spread = (state["square"] - state["mean"].square()).clamp(min=0)
        return {"mean": mean, "square": turn.square() @ spread + mean.square()}


class Gaussian(Dense):
    """Normal numbers from a seed that is all there is to keep."""

    def __init__(self, rank=3, generator=None):
        super().__init__(rank)
        self.seed = generator.initial_seed()

    def refresh(self, g, basis=None):
        return {"seed": self.seed if basis is None else basis["seed"] + 1000, "rows": len(g)}

    def _matrix(self, like, basis):
        drawn = torch.randn(basis["rows"], self.rank, generator=torch.Generator().manual_seed(basis["seed"]))
        return (drawn / self.rank**0.5).to(like)

    def down(self, g, basis):
        return self._matrix(g, basis).mT @ g

    def up(self, y, basis):
        return self._matrix(y, basis) @ y

    def transport(self, state, old, new):
        return {"mean": self.down(self.up(state["mean"], old), new), "square": state["square"]}


SUBSPACES = [card("subspace", Dense, follows=1), card("subspace", Gaussian, orthonormal=False)]
CASES = {
    f"{one.name}-{check.__name__}": (one, check)
    for suite, good in ((transforms, GOOD), (subspaces, SUBSPACES))
    for one in (*methods(good[0].kind), *good)
    for check in (*suite.CHECKS, cards.signature)
}


@pytest.mark.parametrize(("one", "check"), CASES.values(), ids=list(CASES))
def test_contract(one, check):
    check(one)


class Uphill(Momentum):
    def update(self, grad, state, param):
        return -super().update(grad, state, param)


class OnlyVectors(Momentum):
    """Descends on nothing but vectors."""

    def update(self, grad, state, param):
        mean = super().update(grad, state, param)
        return mean if param.ndim < 2 else torch.zeros_like(mean)


class Elsewhere(Momentum):
    """Counts steps on itself, and not in the state."""

    count = 0

    def update(self, grad, state, param):
        self.count += 1
        return super().update(grad, state, param) / (1 + self.count // len(transforms.SHAPES))


class Blurred(Momentum):
    """Holds its mean in a class that safe reading refuses."""

    def init(self, param):
        return {"mean": super().init(param)["mean"], "noise": torch.Generator()}


class Raw(Momentum):
    """Divides by the gradient's norm, whatever it is."""

    def update(self, grad, state, param):
        return grad / grad.norm()


class Moved(Momentum):
    """Moves a little without any gradient."""

    def update(self, grad, state, param):
        return super().update(grad, state, param) + 1e-3


class Spread(Momentum):
    """Works on the mean of each row, in that shape."""

    def update(self, grad, state, param):
        return grad.mean(-1) if grad.ndim > 1 else grad


class InPlace(Momentum):
    def update(self, grad, state, param):
        return grad.mul_(0.5)


class Shared(Momentum):
    """Has one mean norm for all parameters."""

    last = 1.0

    def update(self, grad, state, param):
        self.last = 0.9 * self.last + 0.1 * float(grad.norm())
        return super().update(grad, state, param) / self.last


class View(Momentum):
    """A state that is a view of twice as much."""

    def init(self, param):
        return {"mean": torch.zeros(2 * param.numel(), dtype=torch.float32)[: param.numel()].view(param.shape)}


class Elsewise(Momentum):
    """Takes no decay in its own step."""

    def descend(self, param, grad, state, lr, decay):
        param.sub_(self.update(grad, state, param), alpha=lr)


class Random(Momentum):
    def update(self, grad, state, param):
        return grad * (torch.rand(grad.shape) < 0.5)


class Tilted(Dense):
    """Projects to a basis whose columns are not orthogonal."""

    def refresh(self, g, basis=None):
        return super().refresh(g) + 0.3 * super().refresh(g).flip(1)


class Skewed(Dense):
    def up(self, y, basis):
        return basis.flip(1) @ y


class Squared(Dense):
    """Is not linear."""

    def down(self, g, basis):
        return super().down(g * g.abs(), basis)


class Fixed(Dense):
    """The first coordinates, whatever the gradient."""

    def refresh(self, g, basis=None):
        return torch.eye(len(g), dtype=g.dtype)[:, : self.rank]


class Unscaled(Dense):
    """Forms squares, which leave the range of float32."""

    def refresh(self, g, basis=None):
        return torch.linalg.eigh(g @ g.mT)[1][:, -self.rank :]


class Divided(Dense):
    def refresh(self, g, basis=None):
        return super().refresh(g / g.norm()) if bool(g.any()) else torch.full((len(g), self.rank), torch.nan)


class Stayed(Dense):
    """Leaves the moments where they were."""

    def transport(self, state, old, new):
        return state


class Negative(Dense):
    def transport(self, state, old, new):
        turn = new.mT @ old
        return {"mean": turn @ state["mean"], "square": turn @ state["square"]}


class Large(Gaussian):
    """Normal numbers of variance one."""

    def _matrix(self, like, basis):
        return super()._matrix(like, basis) * self.rank**0.5


class Counting(Gaussian):
    """Keeps to itself how often it was refreshed."""

    count = 0

    def refresh(self, g, basis=None):
        self.count += 1
        return {"seed": self.count, "rows": len(g)}


class Global(Dense):
    def refresh(self, g, basis=None):
        return torch.linalg.qr(torch.randn(len(g), self.rank, dtype=torch.float32))[0].to(g.dtype)


WRONG = [
    (transforms, "descent", card("transform", Uphill, lr=0.3), "goes from"),
    (transforms, "descent", card("transform", OnlyVectors, lr=0.3), r"shape \(6, 10\)"),
    (transforms, "resume", card("transform", Elsewhere), "takes other steps"),
    (transforms, "resume", card("transform", Blurred), "Weights only load failed"),
    (transforms, "homogeneity", card("transform", Momentum, scale=0), "is off by"),
    (transforms, "homogeneity", card("transform", Orthogonal, scale=1), "is off by"),
    (transforms, "zeros", card("transform", Raw), "not finite after gradients"),
    (transforms, "zeros", card("transform", Moved), "without any gradient"),
    (transforms, "shapes", card("transform", Spread), "a direction of shape"),
    (transforms, "apart", card("transform", InPlace), "changes the gradient"),
    (transforms, "apart", card("transform", Shared), "depends on the parameters before it"),
    (transforms, "apart", card("transform", View), "saving stores them all"),
    (transforms, "descent_in_place", card("transform", Elsewise), "descend differs from its direction"),
    (transforms, "repeatable", card("transform", Random), "two directions"),
    (subspaces, "maps", card("subspace", Skewed), "not the transpose"),
    (subspaces, "maps", card("subspace", Squared), "not linear"),
    (subspaces, "inverse", card("subspace", Tilted), "gives back numbers"),
    (subspaces, "inverse", card("subspace", Large, orthonormal=False), "gives back numbers"),
    (subspaces, "capture", card("subspace", Fixed, follows=3), "of a gradient of its own rank"),
    (subspaces, "capture", card("subspace", Unscaled, follows=1), "of a gradient of its own rank"),
    (subspaces, "zeros", card("subspace", Divided), "is not finite after"),
    (subspaces, "moments", card("subspace", Stayed), "another mean"),
    (subspaces, "moments", card("subspace", Negative), "squares"),
    (subspaces, "storage", card("subspace", Counting), "read back"),
    (subspaces, "repeatable", card("subspace", Global), "called twice"),
]


@pytest.mark.parametrize(("suite", "prop", "wrong", "said"), WRONG, ids=lambda v: getattr(v, "name", None))
def test_each_check_catches_what_breaks_it(suite, prop, wrong, said):
    with pytest.raises(Exception, match=said) as caught:
        getattr(suite, prop)(wrong)
    assert isinstance(caught.value, AssertionError) or wrong.function is Blurred


@pytest.mark.parametrize("suite", [transforms, subspaces])
def test_every_check_has_a_wrong_method(suite):
    assert {prop for of, prop, *_ in WRONG if of is suite} == {check.__name__ for check in suite.CHECKS}

"""Fast products of weights, each held to the dense product."""

import pytest
import torch

from polyad.formats import LowRank
from polyad.layers.kernels import product


def test_a_product_adds_its_bias_and_says_what_it_is():
    weight, bias = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    run = product(weight, bias, torch.float32)
    torch.testing.assert_close(run(torch.ones(4, 1, 3)), torch.tensor([4.0, 13.0]).expand(4, 1, 2))
    assert run.name == "plain"
    assert run.nbytes == 24


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\)"):
        product(LowRank(torch.ones(2, 3, 1), torch.ones(2, 1, 3)), None, torch.float32)

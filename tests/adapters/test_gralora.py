"""GraLoRA's blocks against their definition, and SingLoRA's matrix and ramp."""

import pytest
import torch
from torch import nn

from polyad.adapters import Adapters, GraLoRA, SingLoRA
from polyad.testing._contract import seeded_generator


def test_each_block_is_the_product_of_its_own_factors():
    made = GraLoRA((6, 8), rank=4, blocks=2, generator=seeded_generator(0)).double()
    nn.init.normal_(made.B, generator=seeded_generator(1))
    found = made.update(None).to_dense()
    for i in range(2):
        for j in range(2):
            block = found[3 * i : 3 * i + 3, 4 * j : 4 * j + 4]
            torch.testing.assert_close(block, made.B[i, :, j] @ made.A[j, :, i])


def test_the_rank_is_blocks_times_lora_s_at_as_many_numbers():
    made = GraLoRA((32, 32), rank=4, blocks=4, generator=seeded_generator(0)).double()
    nn.init.normal_(made.B, generator=seeded_generator(1))
    assert sum(p.numel() for p in made.parameters()) == 4 * (32 + 32)
    assert int(torch.linalg.matrix_rank(made.update(None).to_dense())) == 16


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"blocks": 4}, "blocks=4 does not divide the 6 rows"),
        ({"rank": 3}, "the rank 3 that is not shared"),
        ({"shared": 4}, "shared=4 is not a part of rank=4"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        GraLoRA((6, 8), **{"rank": 4, "blocks": 2, **arguments})


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (7, 7)])
def test_one_matrix_gives_a_symmetric_positive_square_part(shape):
    made = SingLoRA(shape, rank=2, generator=seeded_generator(0)).double()
    found, least = made.update(None).to_dense().detach(), min(shape)
    assert found.shape == shape
    assert made.A.shape == (max(shape), 2)
    square = found[:least, :least]
    torch.testing.assert_close(square, square.T)
    assert float(torch.linalg.eigvalsh(square).min()) > -1e-12
    torch.testing.assert_close(square, made.A[:least] @ made.A[:least].T)


def test_the_ramp_rises_from_zero_to_one_and_is_saved():
    hosted = Adapters(nn.Sequential(nn.Linear(6, 8)))
    hosted.attach("mine", "*", SingLoRA, rank=2, ramp=0.1)
    own = next(iter(hosted.of("mine").values()))
    seen = []
    for step in (0, 5, 10, 99):
        hosted.before_step(step, 100)
        seen.append(float(own.u))
    assert seen == [0.0, 0.5, 1.0, 1.0]
    assert "0.u" in hosted.state_dict("mine")
    with pytest.raises(ValueError, match="ramp=2 is not a share"):
        SingLoRA((6, 8), rank=2, ramp=2)

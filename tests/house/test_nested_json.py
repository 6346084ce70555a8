"""JSON of lists in lists in lists, deeper than Python reads, is refused as any that cannot be read."""

import pytest
import torch

import polyad
import tiny
from polyad._stated import check_stated
from polyad.adapters import Adapters
from polyad.interop.peft import from_peft

DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_of_a_model(tmp_path, name):
    tiny.model().save_pretrained(tmp_path)
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(ValueError, match=rf"{name} .*copy the folder again"):
        polyad.load(tmp_path)


def test_of_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"holds no adapter of peft's: .*adapter_config\.json"):
        from_peft(Adapters(tiny.model()), tmp_path)


@pytest.mark.parametrize(
    ("stated", "fits"), [(2.5, True), (3, True), (2**63 - 1, True), (2**63, False), (-(10**400), False)]
)
def test_a_number_is_one_that_torch_takes(stated, fits):
    if fits:
        assert check_stated({"scaling": stated}, dict[str, float], "a.json") == {"scaling": stated}
        assert torch.isfinite(torch.ones(1) * stated).all()
    else:
        with pytest.raises(ValueError, match=r"a.json states .* for scaling, where a finite number is needed"):
            check_stated({"scaling": stated}, dict[str, float], "a.json")

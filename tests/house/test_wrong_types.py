"""Arguments of another type are refused by name, before any work, with what to give."""

from functools import partial

import pytest
import torch

import polyad
import tiny
from polyad.adapters import Adapters
from polyad.cache import Kivi, cache_for
from polyad.interop.peft import from_peft, to_peft
from polyad.quantize import round_to_nearest

RTN = partial(round_to_nearest, bits=8, group=8)
CALLS = {
    "plan": (lambda model, _: polyad.plan("smollm2", RTN), "model is a str and no Module; give the model itself"),
    "apply": (lambda model, _: polyad.apply("m", polyad.plan(model, RTN)), "model is a str and no Module; give"),
    "apply a name": (lambda model, _: polyad.apply(model, "svd"), "plan is a str and no Plan; give what polyad.plan"),
    "adapters": (lambda model, _: Adapters("smollm2"), "model is a str and no Module; give the model itself"),
    "save": (lambda model, folder: polyad.save("smollm2", folder / "m"), "model is a str and no Module; give"),
    "save as": (
        lambda model, folder: polyad.save(model, folder / "m", dtype="float16"),
        "dtype is a str and no dtype",
    ),
    "cache": (lambda model, _: cache_for("smollm2", Kivi), "model is a str and no PreTrainedModel; give"),
    "window": (lambda model, _: cache_for(model, Kivi, window="3"), "window is a str and no int; give a number"),
    "from peft": (lambda model, folder: from_peft(model, folder), "adapters is a LlamaForCausalLM and no Adapters; "),
    "to peft": (
        lambda model, folder: to_peft(model, "a", folder / "a"),
        "adapters is a LlamaForCausalLM and no Adap",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_types(name, tmp_path):
    call, said = CALLS[name]
    model = tiny.model()
    before = {key: t.clone() for key, t in model.state_dict().items()}
    with pytest.raises(TypeError, match=said):
        call(model, tmp_path)
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert not list(tmp_path.iterdir())

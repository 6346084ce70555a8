"""Recipes, plans and what applying them leaves: the arithmetic of budgets and of the three rules of modegpt."""

import functools
import re

import pytest
import torch
from torch import nn

import polyad
import tiny
from polyad import compress
from polyad._card import Card
from polyad.allocate.curve import WHOLE
from polyad.compress import Step, eora, equivalent_rescaling, layer_item, lord, modegpt, welore
from polyad.compress.budget import Budget, relative_curves
from polyad.compress.choices import even_sizes
from polyad.compress.importance import divergences
from polyad.compress.items import items
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.evaluation import operations_per_token, parameters
from polyad.formats import Format, LowRank, Product, Quantized, Sum
from polyad.layers import Linear
from polyad.models import blocks, decoder_linears, replace, shards
from polyad.models.attention import ReducedAttention
from polyad.models.calibration import collect
from polyad.models.twin import Twin
from polyad.quantize import round_to_nearest

rtn = functools.partial(round_to_nearest, bits=4)
TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})
UP = "model.layers.0.mlp.up_proj"


def formats(model):
    return {type(m.weight()).__name__ for m in model.modules() if isinstance(m, Linear)}


def made(recipe, kind="llama", **options):
    model = tiny.model(kind)
    plan = polyad.plan(model, recipe, calibrate=TEXT, **options)
    return polyad.apply(model, plan), plan


RECIPES = {
    "svd": (functools.partial(svd, rank=4), {"LowRank"}),
    "lord": (functools.partial(lord, rank=4), {"LowRank"}),
    "centred lord": (functools.partial(lord, rank=4, centre=True), {"LowRank"}),
    "welore": (functools.partial(welore, rank=4), {"LowRank"}),
    "rtn": (rtn, {"Quantized"}),
    "rtn+eora": ([rtn, functools.partial(eora, rank=2)], {"Sum"}),
    "rtn+eora+lord": ([rtn, functools.partial(eora, rank=2), functools.partial(lord, rank=1)], {"Sum"}),
    "lord+rtn": ([functools.partial(lord, rank=4), rtn], {"Product"}),
    "lord+rtn+eora": ([functools.partial(lord, rank=4), rtn, functools.partial(eora, rank=2)], {"Sum"}),
    "rtn+rtn": ([rtn, rtn], {"Quantized"}),
    "rescale+lord": ([equivalent_rescaling, functools.partial(lord, rank=4)], {"LowRank"}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_compose_by_what_a_layer_already_is(name):
    recipe, expected = RECIPES[name]
    model, _ = made(recipe)
    assert formats(model) == expected
    assert torch.isfinite(tiny.logits(model)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["rtn+eora", "centred lord", "modegpt"])
def test_recipes_of_models_in_half_precision_lose_little_more_than_in_full(name, dtype):
    recipe = RECIPES[name][0] if name in RECIPES else functools.partial(modegpt, keep=4)
    said, off = tiny.logits(tiny.model()), []
    for chosen in (torch.float32, dtype):
        model = tiny.model().to(chosen)
        polyad.apply(model, polyad.plan(model, recipe, calibrate=TEXT))
        assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {chosen}
        off.append(float((tiny.logits(model).float() - said).norm() / said.norm()))
    assert off[1] < 1.1 * off[0] + 0.02


def test_later_steps_bring_the_output_nearer():
    said, errors = tiny.logits(tiny.model()), []
    for rank in (0, 2, 8, 30):
        recipe = [rtn, functools.partial(eora, rank=rank)] if rank else [rtn]
        errors.append(float((tiny.logits(made(recipe, select="*mlp*")[0]) - said).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_a_sum_holds_what_was_rounded_and_what_that_left_over():
    model = tiny.model()
    dense = model.get_submodule(UP).weight.detach().clone()
    plan = polyad.plan(model, [rtn, functools.partial(eora, rank=2)], calibrate=TEXT, select=UP)
    polyad.apply(model, plan)
    rough, rest = model.get_submodule(UP).weight().terms
    assert isinstance(rough, Quantized)
    assert isinstance(rest, LowRank)
    assert torch.equal(rough.to_dense(), round_to_nearest(dense, 4).to_dense())
    expected = eora(dense - rough.to_dense(), plan.stats[UP], 2)
    torch.testing.assert_close(rest.to_dense(), expected.to_dense())


def test_quantised_factors_are_those_of_the_factorisation():
    model, _ = made([functools.partial(lord, rank=4), rtn], select=UP)
    held = model.get_submodule(UP).weight()
    assert isinstance(held, Product)
    assert [f.shape for f in held.factors] == [(48, 4), (4, 32)]
    assert all(f.bits == 4 for f in held.factors)


def test_the_query_key_rule_keeps_the_pairs_of_largest_product():
    model = tiny.model("qwen2")
    plan = polyad.plan(model, Step(polyad.card(modegpt), {"keep": 3}, ("qk",)), calibrate=TEXT)
    block = next(b for b in blocks(model, ("qk",)) if b.layer == 0)
    q, k = (plan.stats[block.roles[r]].output_square for r in "qk")
    size = (q.view(2, 2, 2, 4).sum((1, 2)) * k.view(2, 2, 4).sum(1)).sqrt()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    curve = polyad.card(modegpt).curve(block, weights, plan.stats)
    polyad.apply(model, plan)
    module = model.get_submodule(block.home)
    assert isinstance(module, ReducedAttention)
    dropped = [int(i) for i in size.argmin(1)]
    assert [sorted(set(range(4)) - set(row)) for row in module.pairs.tolist()] == [[d] for d in dropped]
    assert float(curve[3]) == pytest.approx(float(size.min(1).values.square().sum()), rel=1e-4)
    assert module.q_proj.bias.shape == (24,)


def test_rules_alone_and_together_cut_what_they_say():
    model, plan = made(functools.partial(modegpt, keep=3, rules="mlp-qk-vo"))
    assert len(plan.sizes[0]) == 9
    attention = model.model.layers[0].self_attn
    assert attention.value_width == 3
    assert attention.pairs.shape == (2, 3)
    assert model.model.layers[0].mlp.up_proj.out_features == 3
    separate = [functools.partial(modegpt, keep=3, rules=rule) for rule in ("mlp", "qk", "vo")]
    torch.testing.assert_close(tiny.logits(made(separate)[0]), tiny.logits(model))


def test_a_bias_of_values_moves_into_the_output_and_changes_no_logits():
    model = tiny.model("qwen2").double()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.view(2, 8, 32)[:, 5] = 0  # one column a head is its bias alone
    before = tiny.logits(model)
    polyad.apply(model, polyad.plan(model, functools.partial(modegpt, keep=7, rules="vo"), calibrate=TEXT))
    attention = model.model.layers[0].self_attn
    assert attention.value_width == 7
    assert not attention.v_proj.bias.any()
    torch.testing.assert_close(tiny.logits(model), before, rtol=1e-5, atol=1e-5)
    smaller, _ = made(functools.partial(modegpt, keep=3), kind="qwen2")
    assert torch.isfinite(tiny.logits(smaller)).all()


def test_centring_starts_from_the_bias_that_rescaling_left():
    whole = functools.partial(lord, rank=16, centre=True)
    model = tiny.model("qwen2").double()
    before = tiny.logits(model)
    polyad.apply(model, polyad.plan(model, [equivalent_rescaling, whole], calibrate=TEXT, select="*v_proj", seed=3))
    assert formats(model) == {"LowRank"}
    torch.testing.assert_close(tiny.logits(model), before, rtol=1e-5, atol=1e-5)


FREE = {
    "lord": lord,
    "welore": welore,
    "modegpt": modegpt,
    "modegpt mlp": functools.partial(modegpt, rules="mlp"),
    "lord+rtn": [lord, rtn],
    "modegpt+rtn": [modegpt, rtn],
    "rescale+lord": [equivalent_rescaling, lord],
}


def spent(model, plan, unit, folder):
    """What the selected modules cost, counted on the model and, for bytes, in the file."""
    if unit == "parameters":
        return parameters(model, plan.selected).selected
    if unit == "flops":
        return operations_per_token(model)
    polyad.save(model, folder, dtype=torch.bfloat16)
    from safetensors.torch import load_file

    tensors = load_file(folder / shards.WEIGHTS)
    return sum(t.nbytes for n, t in tensors.items() if n.startswith(plan.selected) and not n.endswith(".bias"))


@pytest.mark.parametrize(
    ("name", "unit"),
    [(name, unit) for name in FREE for unit in ("parameters", "bytes", "flops")
     if "rtn" not in name or unit != "flops"],  # reading codes costs more operations than factors save
)  # fmt: skip
def test_budgets_are_met_as_they_are_counted(name, unit, tmp_path):
    whole = polyad.plan(tiny.model(), rtn, calibrate=TEXT)
    before = {
        "parameters": parameters(tiny.model(), whole.selected).selected,
        "flops": operations_per_token(tiny.model()),
    }
    before["bytes"] = 2 * before["parameters"]
    keep = 0.8 if "rtn" not in name else 0.28 if unit == "bytes" else 0.7
    model, plan = made(FREE[name], keep=keep, budget=unit, importance=False)
    after = spent(model, plan, unit, tmp_path / "out")
    assert after <= keep * before[unit] * (1 + 1e-9)
    assert after >= (keep - 0.05) * before[unit]


def test_a_budget_out_of_reach_names_the_nearest_share_and_that_one_is_reached():
    with pytest.raises(ValueError, match=r"keep=0\.01 of the parameters cannot be met: .* keeps (0\.\d+)") as error:
        made(functools.partial(modegpt, rules="mlp"), keep=0.01)
    nearest = float(str(error.value).split("keeps ")[1].split()[0]) + 1e-4
    model, plan = made(functools.partial(modegpt, rules="mlp"), keep=nearest)
    assert set(plan.sizes[0].values()) == {4}
    assert model.model.layers[0].mlp.up_proj.out_features == 4


@pytest.mark.parametrize("keep", [0, 1.5, -1, float("nan")])
def test_shares_that_are_none(keep):
    with pytest.raises(ValueError, match="is not a share; give a number above 0 and up to 1"):
        polyad.plan(tiny.model(), lord, keep=keep, calibrate=TEXT)


def test_keeping_everything_changes_nothing():
    model, plan = made(lord, keep=1.0)
    assert set(plan.sizes[0].values()) == {WHOLE}
    assert torch.equal(tiny.logits(model), tiny.logits(tiny.model()))


def test_layers_that_one_step_left_whole_are_not_touched_by_what_treats_the_rest():
    model = tiny.model()
    plan = polyad.plan(model, [functools.partial(lord, rank=3), functools.partial(eora, rank=2)], calibrate=TEXT)
    sizes = dict.fromkeys(plan.sizes[0], WHOLE) | {UP: 3}
    polyad.apply(model, compress.Plan(plan.steps, plan.selected, (sizes, plan.sizes[1]), None, "parameters",
                                      stats=plan.stats))  # fmt: skip
    assert isinstance(model.get_submodule(UP).weight(), Sum)
    assert [p for p, m in model.named_modules() if isinstance(m, Linear)] == [UP]


def test_planning_leaves_the_model_and_its_randomness_alone():
    model = tiny.model()
    before, state = dict(model.named_modules()), torch.get_rng_state()
    numbers = {n: p.detach().clone() for n, p in model.named_parameters()}
    for recipe in (lord, modegpt, [equivalent_rescaling, modegpt]):
        polyad.plan(model, recipe, keep=0.8, calibrate=TEXT)
        assert all(dict(model.named_modules())[p] is m for p, m in before.items())
        assert all(torch.equal(p, numbers[n]) for n, p in model.named_parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_plans_are_the_same_for_the_same_seed():
    first, second = (made([equivalent_rescaling, modegpt], keep=0.7, seed=5) for _ in range(2))
    assert first[1].sizes == second[1].sizes
    assert first[1].importance == second[1].importance
    assert torch.equal(tiny.logits(first[0]), tiny.logits(second[0]))


def test_importance_is_what_a_full_forward_pass_measures():
    for kind in ("llama", "qwen2-mixed", "tied"):
        model = tiny.model(kind)
        paths = [p for p in decoder_linears(model) if "up_proj" in p or "o_proj" in p]
        cut = {p: Linear(svd(model.get_submodule(p).weight.detach(), 3)) for p in paths}
        found = divergences(model, {p: (lambda p=p, cut=cut: {p: cut[p]}) for p in paths}, TEXT.probe)
        p = tiny.logits(model, TEXT.probe)[:, ::2].double().log_softmax(-1)
        for path in paths:
            undo = replace(model, {path: cut[path]})
            q = tiny.logits(model, TEXT.probe)[:, ::2].double().log_softmax(-1)
            undo()
            assert found[path] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3), kind


def test_applying_is_all_or_nothing(monkeypatch):
    model = tiny.model()
    plan = polyad.plan(model, functools.partial(lord, rank=4), calibrate=TEXT)
    before = dict(model.named_modules())
    plan.sizes[0][plan.selected[-1]] = 999
    with pytest.raises(ValueError, match=r"rank=999 exceeds the smaller side"):
        polyad.apply(model, plan)
    assert all(dict(model.named_modules())[p] is m for p, m in before.items())
    with pytest.raises(ValueError, match=r"the plan is for another model: this one has no model.layers.0"):
        polyad.apply(nn.Linear(2, 2), plan)


BAD = {
    "nothing to decide": (
        rtn,
        {"keep": 0.5},
        "keep=0.5 has nothing to decide: every size in round_to_nearest is given",
    ),
    "no share": (lord, {}, "lord needs to know how much to keep"),
    "no text": (lord, {"keep": 0.5, "calibrate": None}, "give calibrate='stdlib'"),
    "no text for eora": (functools.partial(eora, rank=1), {"calibrate": None}, "reads activations; give calibrate"),
    "unit": (lord, {"keep": 0.5, "budget": "euros"}, "budget='euros' is not a unit; choose one of parameters, bytes"),
    "two free": ([lord, eora], {"keep": 0.5}, "lord and eora both wait for the budget"),
    "free after another": ([rtn, eora], {"keep": 0.5}, r"keep cannot size eora beside .* a size of its own \(rank="),
    "free before an addition": (
        [lord, functools.partial(eora, rank=1)],
        {"keep": 0.5},
        "keep cannot size lord beside eora",
    ),
    "empty": ([], {}, r"the recipe \[\] is empty"),
    "an allocation": (polyad.allocate.greedy, {}, "greedy is of kind allocation, not decomposition"),
    "unknown argument": (
        functools.partial(lord, rang=3),
        {},
        r"lord has no argument 'rang'; did you mean rank\? It takes",
    ),
    "by place": (functools.partial(lord, 3), {}, "takes its arguments by name"),
    "a size of words": (functools.partial(lord, rank="four"), {}, "lord: rank='four' is no number"),
    "rules": (functools.partial(modegpt, keep=2, rules="mlp-xy"), {}, "the rules are mlp, qk and vo"),
    "part of a block": (
        functools.partial(modegpt, keep=2),
        {"select": "*up_proj"},
        "the selection holds no block whole",
    ),
    "cut after": ([functools.partial(lord, rank=2), functools.partial(modegpt, keep=2)], {}, "put the cut first"),
    "nothing selected": (rtn, {"select": "*nothing*"}, "matches none of the model's"),
    "bits": (functools.partial(round_to_nearest, bits=9), {}, "bits=9 cannot be packed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes_get_a_sentence(name):
    recipe, options, sentence = BAD[name]
    model = tiny.model()
    with pytest.raises(ValueError, match=sentence):
        polyad.apply(model, polyad.plan(model, recipe, **{"calibrate": TEXT, **options}))
    assert torch.equal(tiny.logits(model), tiny.logits(tiny.model()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [UP + ".weight", "model.norm.weight"])
def test_weights_that_are_no_numbers_are_named(name, value):
    model = tiny.model()
    model.get_parameter(name).data.flatten()[3] = value
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + " of shape .* holds"):
        polyad.plan(model, lord, keep=0.5, calibrate=TEXT)


def test_what_is_compressed_already_is_refused_by_name():
    model, _ = made(functools.partial(lord, rank=4))
    with pytest.raises(ValueError, match=r"q_proj is compressed already \(it holds LowRank.*compress the original"):
        polyad.apply(model, polyad.plan(model, rtn))


def test_every_allocation_meets_the_budget():
    for card in polyad.methods("allocate"):
        model, plan = made(lord, keep=0.6, allocate=card.function)
        assert (
            0.55 < parameters(model, plan.selected).selected / parameters(tiny.model(), plan.selected).selected <= 0.6
        )


def test_block_influence_reads_the_cosine_of_every_layers_input_and_output():
    model = tiny.model()
    text = Calibration(tiny.ids(3, 32), tiny.ids(1, 32), {"ids": "0"})
    hidden = []
    hooks = [
        layer.register_forward_hook(lambda _m, args, _k, out: hidden.append((args[0], out)), with_kwargs=True)
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(text.windows)
    for hook in hooks:
        hook.remove()
    scores = [1 - float(torch.cosine_similarity(x, y, dim=-1).mean()) for x, y in hidden]
    assert max(scores) - min(scores) > 1e-3
    for recipe in (lord, modegpt):
        plan = polyad.plan(model, recipe, keep=0.6, calibrate=text, allocate=polyad.allocate.block_influence)
        assert not plan.importance
        targets, step = {p: model.get_submodule(p) for p in plan.selected}, plan.steps[0]
        limit = Budget(model, targets, 0.6, "parameters")
        allowed = limit.left_for(step, items(model, step, targets, Twin(model)), plan.curves)
        by_item = {name: scores[int(name.split(".")[2])] for name in plan.curves}
        curves = relative_curves(plan.curves)
        assert plan.sizes[0] == polyad.allocate.block_influence(curves, allowed, scores=by_item)
    hot = functools.partial(polyad.allocate.block_influence, temperature=1e-3)
    assert polyad.plan(model, lord, keep=0.6, calibrate=text, allocate=hot).sizes != plan.sizes
    with pytest.raises(ValueError, match="this recipe reads activations; give calibrate='stdlib'"):
        polyad.plan(model, svd, keep=0.6, allocate=polyad.allocate.block_influence)


def test_bits_are_sized_by_the_budget():
    model, plan = made(round_to_nearest, keep=0.3, budget="bytes")
    assert set(plan.sizes[0].values()) <= set(range(2, 9))
    assert len(set(plan.sizes[0].values())) > 1
    assert formats(model) == {"Quantized"}


def test_statistics_are_those_of_the_rescaled_model():
    recipe = [equivalent_rescaling, functools.partial(lord, rank=4)]
    model = tiny.model()
    plan = polyad.plan(model, recipe, calibrate=TEXT, seed=1)
    rescaled = polyad.apply(tiny.model(), polyad.plan(tiny.model(), equivalent_rescaling, seed=1))
    expected = collect(rescaled, {UP: {"second"}}, TEXT.windows.split(1))[UP].second
    torch.testing.assert_close(plan.stats[UP].second, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2-mixed"])
def test_importance_does_not_run_the_layers_before_an_item_again(kind):
    model, calls = tiny.model(kind), []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    path = "model.layers.2.mlp.up_proj"
    held = Linear(svd(model.get_submodule(path).weight.detach(), 3))
    divergences(model, {"one": lambda: {path: held}, "again": lambda: {path: held}}, TEXT.probe)
    assert len(calls) == 1


def test_sizes_are_such_that_processors_multiply_them_fast():
    assert list(even_sizes(9)) == list(range(1, 9))
    assert set(even_sizes(48)) == set(range(4, 48, 4))
    assert {size % 8 for size in even_sizes(1536)} == {0}


def test_slow_ranks_are_left_out_where_asked(monkeypatch):
    monkeypatch.setattr(layer_item, "break_even", lambda shape, dtype: 5)
    _, plan = made(lord, keep=0.7, avoid_slow=True)
    assert set(plan.sizes[0].values()) <= {-1, 1, 2, 3, 4, 5}
    assert max(made(lord, keep=0.7)[1].sizes[0].values()) > 5
    assert made(modegpt, keep=0.7, avoid_slow=True)[1].sizes == made(modegpt, keep=0.7)[1].sizes
    with pytest.raises(ValueError, match="avoid_slow leaves nothing to choose"):
        made(round_to_nearest, keep=0.3, budget="bytes", avoid_slow=True)


def twice(weight: torch.Tensor, stats: object, rank: int) -> Sum:
    """A factorisation that makes two low-rank terms of the rank each."""
    first = svd(weight, rank)
    return Sum((first, svd(weight - first.to_dense(), min(rank, min(weight.shape)))))


def left_over(weight, stats):
    """Squared singular values beyond twice each rank."""
    tails = torch.linalg.svdvals(weight.double()).square().flip(0).cumsum(0).flip(0)
    tails = torch.cat((tails, tails.new_zeros(1)))
    return tails[(2 * torch.arange(len(tails))).clamp(max=len(tails) - 1)]


def pair_of_terms(shape, rank):
    return Sum((LowRank.empty(shape, rank), LowRank.empty(shape, rank)))


@pytest.mark.parametrize(("makes", "template"), [(Sum, None), (Sum, pair_of_terms), (Format, None)])
@pytest.mark.parametrize("budget", ["parameters", "bytes"])
def test_costs_come_from_what_the_method_makes(makes, template, budget):
    card = Card("twice", "factor", twice, makes, (), curve=left_over, template=template)
    recipe = (
        [Step(card)] if budget == "parameters" else [Step(card), Step(polyad.card("round_to_nearest"), {"bits": 4})]
    )
    keep = 0.5 if budget == "parameters" else 0.3
    model = tiny.model()
    plan = polyad.plan(model, recipe, keep=keep, budget=budget)
    whole = Budget(model, {p: model.get_submodule(p) for p in plan.selected}, keep, budget).whole
    polyad.apply(model, plan)
    now = Budget(model, {p: model.get_submodule(p) for p in plan.selected}, keep, budget).whole
    assert 0.8 * keep * whole < now <= keep * whole * (1 + 1e-9)


def test_a_card_that_says_less_than_is_made_is_found_out_and_nothing_is_changed():
    card = Card("twice", "factor", twice, LowRank, (), curve=left_over)
    model = tiny.model()
    plan = polyad.plan(model, [Step(card)], keep=0.5)
    with pytest.raises(ValueError, match=r"twice was to keep 0.5 of the selected parameters and keeps 0\.\d+"):
        polyad.apply(model, plan)
    assert not any(isinstance(module, Linear) for module in model.modules())


def test_a_plan_says_in_a_few_lines_what_it_decided():
    shown = repr(compress.plan(tiny.model(), "modegpt", keep=0.8, calibrate=TEXT)).splitlines()
    assert shown[0] == "Plan(21 layers, keep 0.8 of the parameters, seed 0)"
    assert re.fullmatch(r"  modegpt: keep \d+ to \d+ on \d+ items(, \d+ whole)?", shown[1])
    assert shown[2:] == ["  left: lm_head, the output head"]


@pytest.mark.parametrize(
    ("recipe", "said"), [(3, "3 is no recipe; write"), (None, "None is no recipe"), ([3], "3 is no step")]
)
def test_what_is_no_recipe_is_refused(recipe, said):
    with pytest.raises(TypeError, match=said):
        polyad.plan(nn.Linear(4, 4), recipe)

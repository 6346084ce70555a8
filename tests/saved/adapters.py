"""Adapters: every method of the catalogue, every kind of layer, what layers share, arguments by pattern."""

import torch

from polyad import adapters as public
from polyad._card import methods
from polyad.adapters import Adapters
from polyad.adapters.training import trainer_callback
from polyad.interop.peft import to_peft
from polyad.testing.adapters import move
from polyad.testing.adapters._subject import UnitMoments
from saved.reading import based, inputs, output
from saved.shelf import ASKED, case

FEW = ("*q_proj", "*down_proj")


def keep(name, holds, attach, base="model/two-layers", active=None, merged=True, **asked):
    """Attach to the model of another case, change what is trained, and save each adapter under its name."""
    asked = asked or ASKED
    with case("adapter", name, holds, base=base, active=active or ["a"], merged=merged, **asked) as made:
        stated = {"base": base, **asked}
        model = based(made.folder, stated)
        made.saved.mkdir()
        adapters = Adapters(model)
        attach(adapters, lambda: _said(model, inputs(stated)).square().mean())
        for own in adapters.names:
            adapters.save(own, made.saved / own)
            made.before |= {f"state/{own}/{key}": t for key, t in adapters.state_dict(own).items()}
        adapters.activate(active or ["a"])
        made.before["output"] = output(model, inputs(stated))


def _said(model, x):
    out = model(x)
    return getattr(out, "logits", out)


def put(adapters, loss, method, which=FEW, name="a", **given):
    adapters.attach(name, which, method, loss=loss, stats=UnitMoments(adapters.model), **given)
    move(adapters, name)


def catalogue():
    for card in methods("adapter"):
        given = {key: value for key, value in card.example.items() if key not in ("of", "identity", "inner_alpha")}
        keep(card.name, f"{card.name} on queries and MLPs of two layers",
             lambda adapters, loss, card=card, given=given: put(adapters, loss, card.function, **given))  # fmt: skip


def kinds_of_layers():
    by_name = {card.name: card for card in methods("adapter")}
    for name in ("lora", "dora", "lotr", "c3a", "loha", "vera"):
        card = by_name[name]
        given = {key: value for key, value in card.example.items() if key not in ("of", "identity", "inner_alpha")}

        def on(adapters, loss, of, which="*", card=card, given=given):
            put(adapters, loss, card.function, which, of=of, **given)

        keep(f"experts-{name}", f"{name} on the experts of a mixture",
             lambda a, loss, on=on: on(a, loss, ("experts",)), "model/mixture")  # fmt: skip
        keep(
            f"embedding-{name}",
            f"{name} on an embedding",
            lambda a, loss, on=on: on(a, loss, ("embedding",)),
            "model/plain",
        )
        keep(f"conv-{name}", f"{name} on convolutions", lambda a, loss, on=on: on(a, loss, ("conv",), "2"),
             "model/pictures-plain", input=[1, 3, 8, 8])  # fmt: skip


def bases():
    """Layers that are no plain ones."""
    for base in ("formats-1", "codes", "latent-cut", "heads", "biased", "half", "pictures"):
        asked = {"input": [1, 3, 8, 8]} if base == "pictures" else ASKED
        keep(f"on-{base}", f"LoRA on all linear layers of the model {base}",
             lambda a, loss: put(a, loss, public.LoRA, "*", rank=1), f"model/{base}",
             merged=base in ("heads", "half"), **asked)  # fmt: skip
    keep("on-tied", "LoRA on an embedding and a head that are one tensor",
         lambda a, loss: put(a, loss, public.LoRA, "*", of=("embedding", "linear"), tied=True, rank=1), "model/tied",
         merged=False)  # fmt: skip
    keep("on-parts", "LoRA on the queries and values of a fused projection",
         lambda a, loss: put(a, loss, public.LoRA, "*qkv_proj", parts={"*qkv_proj": [(0, 8), (12, 16)]}, rank=1),
         "model/fused")  # fmt: skip
    keep("parts-vera", "VeRA on the parts of a fused projection",
         lambda a, loss: put(a, loss, public.VeRA, "*qkv_proj", parts={"*qkv_proj": [(0, 8), (12, 16)]}, rank=2),
         "model/fused")  # fmt: skip


def arguments():
    keep("patterns", "LoRA whose ranks and alphas are given by pattern", lambda a, loss: put(
        a, loss, public.LoRA, "*_proj", rank={"*q_proj": 3, "*down_proj": 2, "*": 1},
        alpha={"*.0.*": 4.0, "*": 2.0}, dropout=0.25, seed=7))  # fmt: skip
    keep("rooted", "LoRA scaled by the root of its rank, B alone trained",
         lambda a, loss: put(a, loss, public.LoRA, rank=2, scaling="root", trained="B"))  # fmt: skip
    keep("surm", "SURM of every family", lambda a, loss: [
        put(a, loss, public.SURM, name=family, family=family) for family in ("circulant", "toeplitz", "product")],
        active=["circulant", "toeplitz", "product"])  # fmt: skip
    keep("tasks", "TensorPoly with a router for three tasks",
         lambda a, loss: put(a, loss, public.TensorPoly, rank=2, terms=2, tasks=3, routes="order"))  # fmt: skip

    def several(a, loss):
        put(a, loss, public.LoRA, name="mine", rank=2)
        put(a, loss, public.VeRA, name="yours", rank=2, seed=3)
        put(a, loss, public.LoTR, ("*q_proj",), name="ours", rank=2)

    keep("several", "three named adapters of a model, two with banks, that act by weights", several,
         active={"mine": 0.5, "yours": 2.0, "ours": 1.0})  # fmt: skip

    def recycled(a, loss):
        for i in range(3):
            put(a, loss, public.LoRA, name=f"source{i}", rank=1, seed=i)
        put(a, loss, public.EigenLoRAx, rank=2, components=3)
        public.recycle(a, "a", [f"source{i}" for i in range(3)])
        for i in range(3):
            a.detach(f"source{i}")

    keep("recycled", "EigenLoRAx in the directions of three other adapters", recycled)

    def combined(a, loss):
        put(a, loss, public.LoRA, name="one", rank=1)
        put(a, loss, public.LoHa, name="two", rank=1)
        public.combine(a, "a", {"one": 0.5, "two": 2.0}, rank=2)
        a.detach("one"), a.detach("two")

    keep("combined", "the weighted sum of a LoRA and a LoHa", combined)


def beside():
    """Peft's folders, and what a Trainer's checkpoint keeps of adapters beside the model."""
    base = "model/two-layers"
    with case("peft", "lora", "a LoRA in a folder of peft's", base=base, **ASKED) as made:
        model = based(made.folder, {"base": base})
        adapters = Adapters(model)
        put(adapters, lambda: None, public.LoRA, rank={"*q_proj": 2, "*": 1})
        to_peft(adapters, "a", made.saved)
    attached = {"one": ["adalora:rank=2,spare=1,every=1", "*q_proj"], "two": ["aflora:rank=2", "*down_proj"],
                "three": ["soka:rank=2", "*up_proj"]}  # fmt: skip
    with case("checkpoint", "ranking", "AdaLoRA, AFLoRA and SoKA in the middle of a Trainer's run", base=base, step=9,
              adapters=attached) as made:  # fmt: skip
        _trained(made, base, attached)


def _trained(made, base, attached):
    from types import SimpleNamespace

    from polyad.adapters.host.build import method_of

    model, where = based(made.folder, {"base": base}), made.saved / "checkpoint-9"
    where.mkdir(parents=True)
    adapters = Adapters(model)
    for name, (spelled, select) in attached.items():
        adapters.attach(name, select, method_of(spelled))
    steps = torch.optim.SGD([p for n in adapters.names for p in adapters.parameters(n)], 0.5)
    for step in range(9):
        adapters.before_step(step, 12)
        (_said(model, inputs(ASKED).roll(step, 1)).square().mean() + adapters.penalty()).backward()
        adapters.after_backward(step, 12)
        steps.step()
        adapters.after_step(step, 12)
        steps.zero_grad()
    told = SimpleNamespace(output_dir=made.saved), SimpleNamespace(global_step=9, is_world_process_zero=True)
    trainer_callback(adapters).on_save(*told, None)


MAKE = (catalogue, kinds_of_layers, bases, arguments, beside)

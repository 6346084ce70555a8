"""Generation settings, tokenizer, chat templates and processor: what comes in with a model goes out with it."""

import json

import pytest
import torch
import transformers
from transformers import GenerationConfig

import polyad
import tiny
from polyad.models import origin

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
SETTINGS = {"eos_token_id": [0, 7], "max_new_tokens": 9, "do_sample": True, "temperature": 0.6, "top_k": 11}
COPIED = {
    "preprocessor_config.json": json.dumps({"image_processor_type": "CLIPImageProcessor", "size": 224}),
    "processor_config.json": json.dumps({"processor_class": "LlavaProcessor", "patch_size": 14}),
    "video_preprocessor_config.json": json.dumps({"size": 3}),
    "chat_template.json": json.dumps({"chat_template": TEMPLATE}),
    "tokenizer.model": "sentence pieces\n",
}


@pytest.fixture
def folder(tmp_path):
    """A folder of transformers with all that stands beside weights."""
    home = tmp_path / "model"
    tiny.model().save_pretrained(home)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = {"default": TEMPLATE, "tool": TEMPLATE + "!"}
    tokenizer.add_tokens(["Polyad"])
    model = tiny.model()
    model.resize_token_embeddings(501)
    model.save_pretrained(home)
    tokenizer.save_pretrained(home)
    GenerationConfig(**SETTINGS).save_pretrained(home)
    for name, content in COPIED.items():
        (home / name).write_text(content)
    return home


def unchanged(model):
    pass


def compressed(model):
    polyad.apply(model, polyad.plan(model, "svd:rank=4", select="*.mlp.*"))


@pytest.mark.parametrize("change", [unchanged, compressed], ids=lambda f: f.__name__)
def test_what_stands_beside_the_weights_is_kept(change, folder, tmp_path):
    model = polyad.load(folder)
    change(model)
    first = polyad.save(model, tmp_path / "first", tokenizer=origin(model).tokenizer)
    second = polyad.save(polyad.load(first), tmp_path / "second")
    for place in (first, second):
        again = polyad.load(place)
        assert {key: getattr(again.generation_config, key) for key in SETTINGS} == SETTINGS
        tokenizer = origin(again).tokenizer
        assert tokenizer.chat_template == {"default": TEMPLATE, "tool": TEMPLATE + "!"}
        assert tokenizer.convert_tokens_to_ids("Polyad") == 500
        assert {name: (place / name).read_text() for name in COPIED} == COPIED
        stated = json.loads((place / "generation_config.json").read_text())
        assert stated.items() >= SETTINGS.items()
    assert GenerationConfig.from_pretrained(second).to_dict().items() >= SETTINGS.items()


def test_settings_and_tokenizer_are_those_of_now(folder, tmp_path):
    model = polyad.load(folder)
    model.generation_config.top_k = 3
    tokenizer = tiny.tokenizer()
    polyad.save(model, tmp_path / "out", tokenizer=tokenizer)
    again = polyad.load(tmp_path / "out")
    assert again.generation_config.top_k == 3
    assert origin(again).tokenizer.chat_template is None
    assert len(origin(again).tokenizer) == 500
    assert not (tmp_path / "out" / "chat_template.jinja").exists()


def test_settings_that_contradict_each_other_do_not_stop_saving(folder, tmp_path):
    model = polyad.load(folder)
    model.generation_config.do_sample = False  # with a temperature, which save_pretrained refuses
    with pytest.raises(ValueError, match="GenerationConfig"):
        model.generation_config.save_pretrained(tmp_path)
    polyad.save(model, tmp_path / "out")
    assert polyad.load(tmp_path / "out").generation_config.temperature == 0.6


@pytest.mark.parametrize("change", [unchanged, compressed], ids=lambda f: f.__name__)
def test_a_chat_model_stops_where_its_settings_say(change, folder, tmp_path):
    model = polyad.load(folder)
    change(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[7] = 1e-3 * torch.ones(32)  # the second end, as all other tokens are level with zero
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out")
    ends = [again.generate(tiny.ids(1, 6, seed=s), do_sample=False)[0, 6:].tolist() for s in range(6)]
    assert any(end == [7] for end in ends)
    assert all(len(end) <= 9 for end in ends)


def test_damaged_settings_are_named(folder, tmp_path):
    model = polyad.load(folder)
    compressed(model)
    polyad.save(model, tmp_path / "out")
    (tmp_path / "out" / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation_config\.json cannot be read .*; copy the folder again"):
        polyad.load(tmp_path / "out")


def test_a_vocabulary_without_a_tokenizer_is_copied(tmp_path):
    home = tmp_path / "model"
    tiny.model().save_pretrained(home)
    (home / "vocab.txt").write_text("a\nb\n")
    (home / "chat_template.jinja").write_text(TEMPLATE)
    (home / "additional_chat_templates").mkdir()
    (home / "additional_chat_templates" / "tool.jinja").write_text(TEMPLATE)
    polyad.save(polyad.load(home), tmp_path / "out")
    for name in ("vocab.txt", "chat_template.jinja", "additional_chat_templates/tool.jinja"):
        assert (tmp_path / "out" / name).read_text() == (home / name).read_text()


def test_a_processor_is_read_from_the_folder_that_is_written(tmp_path):
    home = tmp_path / "model"
    config = transformers.CLIPConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
                       "patch_size": 14, "intermediate_size": 8}, projection_dim=8,
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(home)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}).save_pretrained(home)
    polyad.save(polyad.load(home), tmp_path / "out")
    again = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path / "out")
    assert again.size["shortest_edge"] == 28


def test_files_of_the_hub_are_kept_too(folder, tmp_path, monkeypatch):
    """A hub name is served from a folder here, file by file, as transformers does from its cache."""
    real = polyad.load(folder)
    monkeypatch.setattr("polyad._hub._is_cached", lambda _name: True)
    monkeypatch.setattr("polyad.models.loading.load_pretrained", lambda *_, **__: real)
    monkeypatch.setattr("polyad.models.loading.load_tokenizer", lambda *_, **__: origin(real).tokenizer)

    def cached(name, file, **options):
        assert name == "someone/model"
        assert options["_raise_exceptions_for_missing_entries"] is False
        return str(folder / file) if (folder / file).is_file() else None

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached)
    model = polyad.load("someone/model")
    assert origin(model).folder is None
    polyad.save(model, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_text() for name in COPIED} == COPIED

"""Tables as training text: columns by meaning, prompts out of the loss, and the preview of both."""

import csv
import json

import pytest
import torch

import polyad
import tiny
from polyad.adapters.training.batches import Tokens
from polyad.adapters.training.settings import Finetuning
from polyad.data import Records, Text, calibration, read
from polyad.data.calibration import evaluation_counted, splits

BODIES = [body for _, body in tiny.PART.documents]
PAIRS = [{"prompt": f"Question {i}: what is {i} and {i}?", "completion": f" It is {2 * i}."} for i in range(40)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Hello {i}"}, {"role": "assistant", "content": f"Good day {i}"}]}
    for i in range(60)
]
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "tiny"
    tiny.model().save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def write_table(file, rows):
    """The rows in a file of its suffix."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_text_column_is_the_text_and_nothing_of_the_file_around_it(suffix, tmp_path):
    file = write_table(tmp_path / f"topics{suffix}", [{"id": i, "text": body} for i, body in enumerate(BODIES)])
    text = read(file)
    assert isinstance(text, Text)
    assert [body for _, body in text.documents] == BODIES
    assert '{"' not in text.joined()[:200]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_prompts_and_completions_from_every_kind_of_file(suffix, tmp_path):
    table = read(write_table(tmp_path / f"qa{suffix}", PAIRS))
    assert isinstance(table, Records)
    assert [(r.prompt, r.completion) for r in table.records] == [(p["prompt"], p["completion"]) for p in PAIRS]


def test_lines_in_a_json_file_a_list_under_a_key_and_semicolons(tmp_path):
    lines = tmp_path / "lines.json"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    under = tmp_path / "under.json"
    under.write_text('{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}')
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text('text;label\n"a";1\n"b";2\n')
    for file in (lines, under, semicolons):
        assert [body for _, body in read(file).documents] == ["a", "b"]


def test_datasets_objects_and_lists_of_mappings_are_read_too(tiny_folder):
    class Dataset(list):
        info = type("Info", (), {"dataset_name": "squares"})

    Dataset.__module__ = "datasets.arrow_dataset"
    table = read(Dataset(PAIRS))
    assert table.name == "squares"
    assert len(table.records) == 40
    assert read([{"text": "a"}]).documents == (("dataset:1", "a"),)
    model = polyad.load(tiny_folder)
    rows = [{"text": body} for body in BODIES]
    assert calibration(model, rows, count=2).windows.shape == (2, 64)
    with pytest.raises(TypeError, match="a text is given as int; give a name"):
        read(3)


def test_prompts_are_read_and_not_learned(tiny_folder):
    model = polyad.load(tiny_folder)
    tokenizer = tiny.tokenizer()
    (part,) = splits(model, PAIRS)
    first = part.calibration[: part.starts[1]]
    marks = part.learned[0][: part.starts[1]]
    assert tokenizer.decode(first[~marks]).startswith("Question")
    assert tokenizer.decode(first[~marks]).endswith("?")
    assert tokenizer.decode(first[marks]).startswith(" It is")
    assert tokenizer.decode(first[marks]).endswith(".<end>")
    total = len(part.calibration) + len(part.evaluation)
    assert abs(len(part.calibration) / total - 0.7) < 0.05
    assert tokenizer.decode(part.evaluation).startswith("Question")  # parted between two examples
    held = evaluation_counted(model, PAIRS, count=3)["dataset"]
    assert 0 < float(held.float().mean()) < 0.6


def test_the_loss_of_a_row_is_that_of_its_completions(tiny_folder):
    model = polyad.load(tiny_folder)
    tokens = Tokens(model, Finetuning((PAIRS,), batch=3, length=48))
    rows, marks = tokens.rows(2), tokens.counted(2)
    text = tiny.tokenizer().batch_decode(rows)
    assert all(row.startswith("Question") for row in text)
    with torch.no_grad():
        log = model(rows).logits.log_softmax(-1)
        by_hand = [-log[i, j - 1, rows[i, j]] for i in range(3) for j in range(1, 48) if marks[i, j]]
        torch.testing.assert_close(tokens.loss(2), torch.stack(by_hand).mean())
        masked = tokens.rows(2).clone()
    plain = Tokens(model, Finetuning((tiny.PART,), batch=3, length=48))
    assert plain.counted(2) is None
    assert masked.shape == plain.rows(2).shape


def test_conversations_go_through_the_chat_template(chat_folder, tiny_folder, tmp_path):
    file = write_table(tmp_path / "chats.jsonl", CHATS)
    (part,) = splits(polyad.load(chat_folder), file)
    text = tiny.tokenizer().decode(part.calibration)
    assert text.startswith("[user] Hello ")
    assert "[assistant] Good day" in text
    assert '"role"' not in text
    assert bool(part.learned[0].all())
    with pytest.raises(
        ValueError, match="'chats' holds conversations, and the model's tokenizer has no chat template"
    ):
        splits(polyad.load(tiny_folder), file)
    split_chats = [{"prompt": chat["messages"][:1], "completion": chat["messages"][1:]} for chat in CHATS]
    (part,) = splits(polyad.load(chat_folder), split_chats)
    end = part.starts[1]
    marked = tiny.tokenizer().decode(part.calibration[:end][part.learned[0][:end]])
    assert marked.startswith(" Good day")


def test_a_folder_of_tables(tmp_path):
    write_table(tmp_path / "a.jsonl", [{"text": "first"}])
    write_table(tmp_path / "b.csv", [{"text": "second"}])
    assert [body for _, body in read(tmp_path).documents] == ["first", "second"]
    write_table(tmp_path / "c.jsonl", PAIRS)
    with pytest.raises(ValueError, match=r"holds tables of plain text .* and of conversations or prompts"):
        read(tmp_path)


REFUSED = {
    "weights.bin": (b"\0\1", r"is of a kind that is not read as text; read are \.txt, .*\.parquet, folders of them"),
    "a.jsonl": (b'{"text": "a"}\n{"text": \n', r"line 2 of .*a\.jsonl is no JSON .*write one object a line"),
    "b.jsonl": (b'"alone"\n', r"row 1 of .*b\.jsonl is a value alone; each row must be an object"),
    "c.jsonl": (b'{"instruction": "a", "output": "b"}', r"has the columns instruction, output, none that says what"),
    "d.jsonl": (b"\n", r"holds no rows"),
    "e.jsonl": (b'{"text": 3}', r"text of row 1 of .*e\.jsonl is a int, where characters are read"),
    "f.jsonl": (b'{"messages": [{"content": "a"}]}', r"messages of row 1 of .*f\.jsonl is no conversation; write"),
    "g.jsonl": (b'{"prompt": "a", "completion": ""}', r"the completion of row 1 of .*g\.jsonl is empty"),
    "h.csv": (b"text,label\na,1,2\n", r"line 2 of .*h\.csv has another number of columns than its header"),
    "i.json": (b"[{]", r"i\.json is no JSON"),
    "j.parquet": (b"no parquet", r"j\.parquet is no whole parquet file"),
    "k.csv": ("text\nGrüße\n".encode("latin-1"), r"k\.csv is not text: byte \d+ is not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_by_what_is_read(name, tmp_path):
    content, sentence = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / name)


def test_every_row_reaches_a_completion_where_prompts_are_longer_than_a_row(tiny_folder):
    long = [{"prompt": "word " * 200 + str(i), "completion": "x"} for i in range(9)]
    tokens = Tokens(polyad.load(tiny_folder), Finetuning((long,), length=64))
    assert all(bool(tokens.counted(step)[:, 1:].any(1).all()) for step in range(5))


def test_the_preview_prints_what_is_trained(polyad_command, chat_folder, tmp_path):
    file = write_table(tmp_path / "qa.jsonl", PAIRS)
    asked = ("adapt", chat_folder, "--data", file, "--out", tmp_path / "out", "--preview", "--length", 48)
    code, said, wrong = polyad_command(*asked)
    assert code == 0, wrong
    assert said.count("of 48 tokens") == 3
    assert said.splitlines()[1].startswith("⟦Question ")
    assert "?⟧ It is " in said
    assert "the loss does not count what is within ⟦ ⟧" in said
    assert not (tmp_path / "out").exists()
    code, said, _ = polyad_command(*asked, "--json")
    rows = json.loads(said)["rows"]
    assert [piece["counted"] for piece in rows[0][:2]] == [False, True]


def test_an_adapter_learns_completions_and_not_prompts(polyad_command, chat_folder, tmp_path):
    prompts = "the quick brown fox jumps over the lazy dog and runs"
    rows = [{"prompt": f"{prompts} {i}", "completion": " yes yes yes yes"} for i in range(80)]
    file = write_table(tmp_path / "yes.jsonl", rows)
    asked = ("--adapter", "lora:rank=4", "--rate", 0.02, "--steps", 30, "--length", 48, "--windows", 2, "--json")
    code, said, wrong = polyad_command("adapt", chat_folder, "--data", file, "--out", tmp_path / "out", *asked)
    assert code == 0, wrong
    held = json.loads(said)["held_out"]["yes"]
    assert held["after"] < 0.5 * held["before"]

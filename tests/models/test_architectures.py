"""A stratified part of the sweep over the architectures of transformers: each job ends as the kept results say."""

import json
from pathlib import Path

import pytest
from benchmarks.architectures.__main__ import RESULTS, outcome
from benchmarks.architectures.build import architectures
from benchmarks.architectures.jobs import JOBS, Case

PART = (
    "LlamaForCausalLM",
    "Gemma3ForCausalLM",  # scaled embeddings, sliding layers, norms of 1 + w
    "GPT2LMHeadModel",  # transposed linear layers, learned positions
    "SmolLM3ForCausalLM",  # layers without rotation
    "PhimoeForCausalLM",  # experts, and a router that returns tuples
    "Qwen3NextForCausalLM",  # a hybrid with state-space layers
    "DeepseekV3ForCausalLM",  # latent attention
    "MambaForCausalLM",  # weights read past their layers
    "T5ForConditionalGeneration",
    "BertForMaskedLM",
    "Qwen2VLForConditionalGeneration",
)
KEPT = json.loads(RESULTS.read_text())
BY_NAME = {a.name: a for a in architectures()}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", [name for name in PART if name in BY_NAME])
def test_jobs_end_as_in_the_kept_results(name, job, tmp_path):
    architecture = BY_NAME[name]
    kept = KEPT[f"{architecture.kind} {architecture.model_type} {name}"][job]
    verdict, reason = outcome(Case(architecture, tmp_path), job)
    assert verdict == kept[0], reason


def test_at_least_eighty_in_a_hundred_are_right_in_every_job():
    for job in JOBS:
        verdicts = [outcomes[job][0] for outcomes in KEPT.values() if job in outcomes]
        applies = [verdict for verdict in verdicts if verdict != "does not apply"]
        assert verdicts.count("right") >= 0.8 * len(applies), job
        assert "wrong" not in verdicts, job
    assert len([outcomes for outcomes in KEPT.values() if "load" in outcomes]) > 250


def test_the_page_says_what_was_kept():
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    for key, outcomes in KEPT.items():
        built = "does not build" not in outcomes
        assert (f"\n| {key.split()[2]} |" in page) == built, key
    for job in JOBS:
        right = sum(outcomes[job][0] == "right" for outcomes in KEPT.values() if job in outcomes)
        assert f"| {right} (" in next(line for line in page.splitlines() if line.startswith(f"| `{job}` |"))

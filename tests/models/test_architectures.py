"""A stratified part of the sweep over the architectures of transformers: each job ends as the kept results say."""

import json
from pathlib import Path

import pytest
import transformers
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
BY_CLASS = {key.split()[2]: outcomes for key, outcomes in KEPT.items()}
OLD = transformers.__version__.startswith("5.0.")
if OLD:  # whose configuration takes the width of a head for that of its rotation, so that none runs small
    PART = tuple(name for name in PART if name != "DeepseekV3ForCausalLM")
BY_NAME = {a.name: a for a in architectures()}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", [name for name in PART if name in BY_NAME])
def test_jobs_end_as_in_the_kept_results(name, job, tmp_path):
    architecture = BY_NAME[name]
    verdict, reason = outcome(Case(architecture, tmp_path), job)
    refused = ("refused", "does not apply") if OLD else ()  # the kept results are of a newer transformers
    assert verdict in (BY_CLASS[name][job][0], *refused), reason


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

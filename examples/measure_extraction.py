"""Exact match of a small extraction task, as a measure for polyad.

    polyad evaluate smollm2 --measure examples/measure_extraction.py:exact_match
    polyad compare smollm2 --methods 'modegpt;lord' --measure examples/measure_extraction.py:exact_match

The model reads two solved cases and a third sentence, and continues; 1 where its first words are the year that the
sentence names, else 0.
"""

from __future__ import annotations

from typing import Any

import torch

SOLVED = (
    "Sentence: The bridge was opened in 1883 after long delays.\nYear: 1883\n\n"
    "Sentence: Her first book came out in 1951 and sold slowly.\nYear: 1951\n\n"
)
CASES = [
    ("The museum moved to the harbour in 1974.", "1974"), ("He was elected mayor in 1902 by a few votes.", "1902"),
    ("In 1845 the railway reached the town.", "1845"), ("They planted the oak in 1799, before the war.", "1799"),
    ("The company, founded in 1923, makes pumps.", "1923"), ("A fire destroyed the mill in 1868.", "1868"),
    ("Since 1991 the park has been open to all.", "1991"), ("The treaty of 1648 ended the conflict.", "1648"),
    ("Her recording of 1959 is still in print.", "1959"), ("The school burnt down in 1937 and was rebuilt.", "1937"),
    ("Radio came to the valley in 1929.", "1929"), ("The last ship left the dock in 1986.", "1986"),
]  # fmt: skip


def exact_match(model: Any, tokenizer: Any) -> list[float]:
    """1 for each sentence whose year is named, else 0."""
    right = []
    for sentence, year in CASES:
        ids = tokenizer(f"{SOLVED}Sentence: {sentence}\nYear:", return_tensors="pt").input_ids.to(model.device)
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
        answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split()
        right.append(float(answer[:1] == [year]))
    return right

"""Classification accuracy of an encoder, as a measure for polyad.

    polyad evaluate FOLDER --measure examples/measure_encoder.py:accuracy
    polyad evaluate SMALLER --original FOLDER --measure examples/measure_encoder.py:accuracy

Each sentence is given the topic whose other sentences it is nearest to, by their mean embedding. No head is needed,
and each sentence counts once: 1 where the topic is right, 0 where it is not.
"""

from __future__ import annotations

from typing import Any

import torch

SENTENCES = {
    "weather": [
        "It will rain in the north until the evening.", "A cold wind brings snow to the hills.",
        "The fog clears before noon and the sun comes out.", "Thunderstorms are expected along the coast.",
        "Temperatures fall below zero at night.", "The heat lasts until the end of the week.",
        "Clouds gather over the valley after lunch.", "A light breeze keeps the afternoon mild.",
    ],
    "cooking": [
        "Fry the onions in butter until they are golden.", "Let the dough rest in the fridge for an hour.",
        "Season the soup with salt and pepper.", "Bake the cake until a knife comes out clean.",
        "Chop the carrots and add them to the pan.", "Whisk the eggs with the sugar.",
        "Simmer the sauce with a leaf of bay.", "Serve the fish with lemon and potatoes.",
    ],
    "money": [
        "The bank raised its interest rate again.", "Shares of the company fell by a tenth.",
        "She pays the loan back over twenty years.", "The budget leaves a deficit of two billion.",
        "Inflation eats into what people save.", "The fund invests in bonds and in property.",
        "He owes tax on the profit from the sale.", "Their insurance does not cover the damage.",
    ],
}  # fmt: skip


def accuracy(model: Any, tokenizer: Any) -> list[float]:
    """1 for each sentence whose topic is found, else 0."""
    texts = [text for topic in SENTENCES.values() for text in topic]
    topics = torch.tensor([i for i, topic in enumerate(SENTENCES.values()) for _ in topic])
    vectors = torch.stack([embedding(model, tokenizer, text) for text in texts])
    right = []
    for i, vector in enumerate(vectors):
        others = [(topics == topic) & (torch.arange(len(texts)) != i) for topic in range(len(SENTENCES))]
        means = torch.stack([vectors[other].mean(0) for other in others])
        nearest = torch.nn.functional.cosine_similarity(means, vector[None]).argmax()
        right.append(float(nearest == topics[i]))
    return right


def embedding(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """The mean of a text's last hidden states, of length one."""
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    hidden = model(ids, output_hidden_states=True).hidden_states[-1][0].float()
    return torch.nn.functional.normalize(hidden.mean(0), dim=0)

"""Pairs of rows and columns whose scores add up to the most."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best_assignment(scores: Tensor) -> Tensor:
    """For each row of a square matrix (n, n) a column of its own, (n,), so that the sum of their scores is greatest.

    Shortest augmenting paths with prices of rows and columns: n³ operations at most.

    >>> best_assignment(torch.tensor([[0.9, 0.8], [0.9, 0.1]]))
    tensor([1, 0])
    """
    costs = (-scores.detach().double()).tolist()
    n = len(costs)
    row_of = [-1] * (n + 1)  # of each column; the last is where a path begins
    row_price, column_price = [0.0] * n, [0.0] * (n + 1)
    for row in range(n):
        row_of[n], column = row, n
        slack, before, visited = [math.inf] * n, [n] * n, [False] * (n + 1)
        while row_of[column] >= 0:
            visited[column] = True
            at, least, following = row_of[column], math.inf, n
            for j in (j for j in range(n) if not visited[j]):
                reduced = costs[at][j] - row_price[at] - column_price[j]
                if reduced < slack[j]:
                    slack[j], before[j] = reduced, column
                if slack[j] < least:
                    least, following = slack[j], j
            for j in range(n + 1):
                if visited[j]:
                    row_price[row_of[j]] += least
                    column_price[j] -= least
                elif j < n:
                    slack[j] -= least
            column = following
        while column != n:
            row_of[column], column = row_of[before[column]], before[column]
    column_of = torch.empty(n, dtype=torch.long)
    for column, row in enumerate(row_of[:n]):
        column_of[row] = column
    return column_of

"""Operations on attached adapters: sums, merges, ensembles, curves between them, distillation."""

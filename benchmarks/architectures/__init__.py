"""Every architecture of transformers that builds small at random, through every job that polyad does with a model.

``python -m benchmarks.architectures`` goes on where it stopped, ``--only MODEL_TYPE ...`` runs some again, and
``--page`` writes docs/architectures.md. Each architecture runs in a process of its own with a limit of time. A cell
is *right* (equal to plain transformers), *refused* (a ``ValueError`` of polyad's, with its sentence), *does not
apply* with the reason, or *wrong*.
"""

"""Peers' own test suites, run with polyad's functions in the place of theirs.

``python -m benchmarks.peers_suites tensorly`` runs the tests that the package ships; ``torchtt``, ``peft`` and
``transformers`` (its tests of caches) with ``--source FOLDER`` those of a source checkout. A test counts as *right*
where it passes with polyad, as *refused* where polyad says that it has no such thing (or refuses the input), and as
*wrong* otherwise. Tests that fail with the peer itself, and those that never reach a function of polyad's, are left
out.
"""

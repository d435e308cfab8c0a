"""Trained models of nnU-Net v2.

- ``format``: ``recognises`` and ``load``.
- ``folder``: plans, data set and checkpoints, held against each other; ``steps``: its preprocessing in medadv's words.
- ``predictor``: nnU-Net's own prediction, which is scored.
"""

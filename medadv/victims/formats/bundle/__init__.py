"""MONAI bundles.

- ``format``: ``recognises`` and ``load``.
- ``config``: the configuration as data, literals and references; ``trusted``: the only place where MONAI may run it.
- ``steps``, ``windows``: its preprocessing and inferer in medadv's words; ``answer``: what its channels mean.
- ``postprocessing``, ``inverse``: the way back as MONAI goes it; ``deployed``: MONAI's own prediction, which is scored.
"""

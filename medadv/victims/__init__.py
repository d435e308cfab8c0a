"""The predictors under test: differentiable from stored voxels, and deployed for scoring.

``segmentation`` puts ``normalize``, ``window`` and ``head`` around a network; ``networks`` names architectures;
``checkpoint`` keeps a victim on disk.
"""

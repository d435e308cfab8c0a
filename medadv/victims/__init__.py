"""The predictors under test: differentiable from stored voxels, and deployed for scoring.

``segmentation`` puts preprocessing, ``window`` and ``head`` around a network. ``preprocess`` says what a step is;
``normalize`` and ``ranges`` change intensities, ``spatial`` names all that change the grid (``spacing``, ``resample``,
``crop``), ``grid`` knows where voxels lie. ``transforms`` are defences, ``defended`` puts them in front.
``networks`` names architectures; ``checkpoint`` keeps a victim on disk.
"""

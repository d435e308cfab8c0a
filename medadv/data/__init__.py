"""Data: files to voxels and back.

- ``case``: ``Case``, ``Cohort`` and ``Refusal`` hold ids and paths; ``Volume`` holds voxels.
- ``files``: ``read`` a case, ``write`` an adversarial one, digests of content.
- ``gate``: what a file must be before anybody computes with it.
- ``nifti``: NIfTI with a fresh header.
- ``brats``, ``msd``: importers; they declare channel order and label numbers, and never guess.
- ``phantom``, ``phantom_anatomy``: a data set without a download.
"""

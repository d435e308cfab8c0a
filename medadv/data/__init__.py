"""Data: files to voxels and back.

- ``case``: ``Case``, ``Cohort`` and ``Refusal`` hold ids and paths; ``Volume`` holds voxels.
- ``files``: ``read`` a case, ``write`` an adversarial one, digests of content.
- ``gate``: what a file must be before anybody computes with it.
- ``nifti``: NIfTI with a fresh header.
- ``brats``, ``msd``, ``nnunet``: importers of layouts that declare channel order and label numbers themselves.
- ``datalist``, ``pattern``: importers of what declares neither; the user does, and nothing is guessed.
- ``census``: how importers gather a cohort, and what they refuse.
- ``phantom``, ``phantom_anatomy``: a data set without a download.
"""

"""Data: files to voxels and back.

- ``case``: ``Case``, ``Cohort`` and ``Refusal`` hold ids and paths; ``Volume`` holds voxels.
- ``files``: ``read`` a case, ``write`` an adversarial one, digests of content.
- ``gate``: what a file must be before anybody computes with it; ``header``: what it says of itself.
- ``nifti``, ``itk`` (NRRD, MHA), ``dicom``: their headers held against their files; NIfTI with a fresh header.
- ``resample``: registered images onto one grid; ``support``: where an image may be attacked.
- ``brats``, ``msd``, ``nnunet``: importers of layouts that declare channel order and label numbers themselves.
- ``datalist``, ``pattern``: importers of what declares neither; the user does, and nothing is guessed.
- ``census``: how importers gather a cohort, and what they refuse.
- ``phantom``, ``phantom_anatomy``: a data set without a download.
"""

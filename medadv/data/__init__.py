"""Data: files to voxels and back.

- ``case``: ``Case``, ``Cohort`` and ``Refusal`` hold ids and paths; ``Volume`` holds voxels.
- ``files``: ``read`` a case, ``write`` an adversarial one, digests of content.
- ``gate``: what a file must be before anybody computes with it; ``header``: what it says of itself.
- ``nifti``, ``itk`` (NRRD, MHA), ``dicom``: their headers held against their files; NIfTI with a fresh header.
- ``scan``, ``picture``: a case of each kind, read; ``pixels``: pictures and label maps as files; ``outlines``: COCO's
  polygons and run lengths, drawn.
- ``resample``: registered images onto one grid; ``support``: where an image may be attacked.
- ``brats``, ``msd``, ``nnunet``: importers of layouts that declare channel order and label numbers themselves.
- ``voc``, ``cityscapes``, ``coco``: importers of pictures; ``listing``: which of them, by a list of ids.
- ``datalist``, ``pattern``: importers of what declares neither; the user does, and nothing is guessed.
- ``census``: how importers gather a cohort, and what they refuse.
- ``phantom``, ``phantom_anatomy``; ``pictures``, ``picture_scene``: data sets without a download.
"""

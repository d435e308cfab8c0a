"""The one gate of the data room: every image and label map passes it, before and after its voxels are read.

Each check raises ``CaseError`` with the reason that stands in ``quarantine.json``. Nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from medadv.data import dicom, itk, nifti
from medadv.data.header import Header as Header
from medadv.data.header import apart
from medadv.errors import CaseError, Reason
from medadv.labels import BACKGROUND, LabelScheme, fitting
from medadv.objects import Objects

DETACHED = (".nhdr", ".mhd", ".hdr", ".img")
"""Headers whose voxels lie in another file, which they name."""
NOT_JUDGED = (255, -1)
"""Numbers that many data sets give to what is not judged."""
EDGE = 0.01
"""How far, in voxels, a box may reach out of its image: decimals are rounded when they are written."""
_SLICE = (".dcm", ".dicom", ".ima")
_REGISTERED = "if the modalities are registered, name the one whose grid the others are resampled onto: data.grid"


def check_header(path: Path) -> Header:
    """Read the header of a file, or the headers of a folder with one DICOM series, without allocating a voxel.

    Raises:
        CaseError: UNREADABLE, DIMENSIONS, HEADER_SIZE, DATA_TYPE or AFFINE_INVALID; for DICOM also SERIES_MIXED,
            SERIES_SLICES, SERIES_DUPLICATES, SERIES_GAPS, MULTI_FRAME or NOT_MR.
    """
    if path.is_dir():
        return dicom.check_series(path)
    name = path.name
    if name.endswith(nifti.SUFFIXES):
        return nifti.check_nifti(path)
    if name.endswith(".nrrd"):
        return itk.check_nrrd(path)
    if name.endswith(".mha"):
        return itk.check_mha(path)
    advice = None
    name = name.lower()
    if name.endswith(DETACHED):
        advice = "write header and voxels into one file: .nii.gz, .nrrd or .mha; a header could name any file"
    elif name.endswith(_SLICE) or name == "dicomdir":
        advice = "name the folder that holds the slices of the series, and nothing but them"
    raise CaseError(
        Reason.UNREADABLE,
        f"{path.name} is of no kind that is read",
        expected="a .nii, .nii.gz, .nrrd or .mha file, or a folder with one DICOM series; of a picture, one file "
        "for all of red, green and blue",
        advice=advice,
    )


def check_geometry(headers: Mapping[str, Header]) -> None:
    """Hold the modalities of one case against each other: the same shape, the same place in space.

    Raises:
        CaseError: SHAPE_MISMATCH, or AFFINE_MISMATCH where any of the grid's eight corners is further apart than
            ``AFFINE_TOLERANCE``.
    """
    names = list(headers)
    first = headers[names[0]]
    for name in names[1:]:
        other = headers[name]
        if other.shape != first.shape:
            raise CaseError(
                Reason.SHAPE_MISMATCH,
                f"{name} does not have the shape of {names[0]}",
                got=other.shape,
                expected=first.shape,
                advice=f"resample all modalities onto one grid before the study; or, {_REGISTERED}",
            )
        if problem := apart(first, other):
            raise CaseError(
                Reason.AFFINE_MISMATCH,
                f"{name} does not lie where {names[0]} lies: {problem}",
                got=other.affine.tolist(),
                expected=first.affine.tolist(),
                advice=f"resample all modalities onto one grid before the study; or, {_REGISTERED}",
            )


def check_intensities(x: Float[Tensor, "c *s"], modalities: tuple[str, ...]) -> None:
    """Refuse voxels that no statistics can be taken of.

    Raises:
        CaseError: NOT_FINITE, or CONSTANT_MODALITY for a modality that is zero everywhere or has one value where it
            is not zero.
    """
    for voxels, name in zip(x, modalities, strict=True):
        bad = int((~torch.isfinite(voxels)).sum())
        if bad:
            raise CaseError(
                Reason.NOT_FINITE,
                f"{name} holds NaN or infinite voxels",
                got=f"{bad} of {voxels.numel()} voxels",
                advice="find the step of preprocessing that divides by zero or leaves the grid",
            )
        inside = voxels[voxels != 0]
        if inside.numel() == 0 or bool(inside.min() == inside.max()):
            raise CaseError(
                Reason.CONSTANT_MODALITY,
                f"{name} shows nothing",
                got="zero everywhere" if inside.numel() == 0 else f"{float(inside[0])} wherever it is not zero",
                expected="an image",
                advice="check that this is the scan and not a mask",
            )


def check_labels(
    labels: Float64[Tensor, "*s"], label: Header, image: Header, scheme: LabelScheme
) -> Int64[Tensor, "*s"]:
    """Take a label map as read from its file, and give it back as whole numbers that the scheme knows.

    Raises:
        CaseError: LABEL_GRID, LABEL_NOT_INTEGER or LABEL_OUTSIDE_SCHEME; the last lists the numbers found and the
            schemes that they would fit.
    """
    if label.shape != image.shape or label.channels is not None:
        shape = label.shape if label.channels is None else (*label.shape, label.channels)
        raise CaseError(Reason.LABEL_GRID, "the label map has another shape", got=shape, expected=image.shape)
    if problem := apart(image, label):
        raise CaseError(
            Reason.LABEL_GRID,
            f"the label map does not lie on the image: {problem}",
            got=label.affine.tolist(),
            expected=image.affine.tolist(),
        )
    fractions = (labels != labels.round()) | torch.isinf(labels)  # NaN is unequal to itself
    if bool(fractions.any()):
        raise CaseError(
            Reason.LABEL_NOT_INTEGER,
            "the label map holds numbers that are not whole",
            got=f"{int(fractions.sum())} voxels, such as {labels[fractions][:3].tolist()}",
            advice="resample label maps with nearest neighbour",
        )
    whole = labels.to(torch.int64)
    check_numbers(whole, scheme)
    return whole


def check_numbers(labels: Int64[Tensor, "*s"], scheme: LabelScheme) -> None:
    """Refuse a label map with numbers that are neither the scheme's nor void.

    Raises:
        CaseError: LABEL_OUTSIDE_SCHEME lists the numbers found and the schemes that they would fit.
    """
    if unknown := scheme.unknown(labels):
        found = torch.unique(labels).tolist()
        shown = found if len(found) <= 20 else [*found[:20], "…"]
        advice = f"these numbers would fit {fitting(found) or 'none of the named schemes'}; declare the right one"
        if set(unknown) <= set(NOT_JUDGED):
            advice = f"{unknown[0]} often marks what is not judged: if it does, declare it as the scheme's void"
        raise CaseError(
            Reason.LABEL_OUTSIDE_SCHEME,
            f"the label scheme {scheme.name!r} does not know {unknown[:20]}",
            got=shown,
            expected=sorted({*scheme.numbers.values(), *(() if scheme.void is None else (scheme.void,))}),
            advice=advice,
        )


def check_objects(objects: Objects, shape: Sequence[int], scheme: LabelScheme) -> None:
    """Refuse boxes that are not of this image: none is cut, moved or left out.

    Args:
        objects: an expert's.
        shape: the image's axes of space.
        scheme: whose tissues, but for the background, they may be.

    Raises:
        CaseError: BOXES.
    """
    axes = len(shape)
    problem = None
    bad = torch.zeros(len(objects), dtype=torch.bool)
    if objects.boxes.shape[1] != 2 * axes:
        problem = f"boxes have {objects.boxes.shape[1]} numbers, and the image {axes} axes"
    else:
        low, high = objects.boxes[:, :axes], objects.boxes[:, axes:]
        known = [number for tissue, number in scheme.numbers.items() if tissue != BACKGROUND]
        faults = {
            "a box is not finite": ~torch.isfinite(objects.boxes).all(1),
            "a box has no area": (high <= low).any(1),
            "a box reaches out of the image": ((low < -EDGE) | (high > torch.tensor(shape) + EDGE)).any(1),
            "a box is of a class that the scheme does not know": ~torch.isin(objects.labels, torch.tensor(known)),
        }
        problem, bad = next(((text, fault) for text, fault in faults.items() if bool(fault.any())), (None, bad))
    if problem:
        shown = [(box.tolist(), int(n)) for box, n in zip(objects.boxes[bad], objects.labels[bad], strict=True)]
        raise CaseError(
            Reason.BOXES,
            problem,
            got=f"{len(shown)} of {len(objects)} boxes, such as {shown[0]}" if shown else None,
            expected=f"boxes within {list(shape)}: lowest corner, highest corner, in the order of the image's axes",
            advice="correct the annotation of this image, or leave the image out",
        )


def check_mask(voxels: Float[Tensor, "*s"], mask: Header, image: Header) -> Bool[Tensor, "*s"]:
    """Take a mask as read from its file, and give it back as booleans: whatever is not 0 is inside.

    Raises:
        CaseError: MASK_GRID, NOT_FINITE or MASK_EMPTY.
    """
    if mask.shape != image.shape or mask.channels is not None:
        shape = mask.shape if mask.channels is None else (*mask.shape, mask.channels)
        raise CaseError(
            Reason.MASK_GRID, "the mask has another shape", got=shape, expected=image.shape, advice=_REGISTERED
        )
    if problem := apart(image, mask):
        raise CaseError(
            Reason.MASK_GRID,
            f"the mask does not lie on the image: {problem}",
            got=mask.affine.tolist(),
            expected=image.affine.tolist(),
            advice=_REGISTERED,
        )
    if bad := int((~torch.isfinite(voxels)).sum()):
        raise CaseError(
            Reason.NOT_FINITE, "the mask holds NaN or infinite voxels", got=f"{bad} of {voxels.numel()} voxels"
        )
    inside = voxels != 0
    if not bool(inside.any()):
        raise CaseError(Reason.MASK_EMPTY, "the mask is 0 everywhere", expected="not 0 where the head is")
    return inside

"""Label maps drawn from outlines: COCO's polygons and run lengths, with pycocotools.

Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; the format at cocodataset.org/#format-data.
"""

from __future__ import annotations

import warnings
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from pycocotools import mask as coco

from medadv.data.case import Painted
from medadv.errors import CaseError, Reason

_LEAST = 6
"""Numbers of a polygon: three points."""


def painted(what: Painted) -> Int64[np.ndarray, "h w"]:
    """The label map of some outlines.

    Where objects of different classes overlap nobody says which is in front: those pixels are void, as are those of a
    crowd that no object covers.

    Raises:
        CaseError: DECLARATION, an outline that cannot be drawn.
    """
    background, void = what.background, what.void
    labels = np.full(what.shape, background, np.int64)
    for outline in what.crowds:
        labels[outlined(outline, what.shape)] = void
    owner = np.full(what.shape, background, np.int64)
    for number, outline in what.parts:
        inside = outlined(outline, what.shape)
        disputed = inside & (owner != background) & (owner != number)
        labels[inside] = owner[inside] = number
        owner[disputed] = void
    labels[owner == void] = void
    return labels


def outlined(outline: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels inside of one outline.

    Args:
        outline: polygons ``[[x, y, …], …]``, or ``{"size": [h, w], "counts": numbers or text}``.
        shape: the picture's height and width.

    Raises:
        CaseError: DECLARATION.
    """
    height, width = shape
    try:
        if isinstance(outline, list):
            _check_polygons(outline)
            runs = coco.merge(coco.frPyObjects(outline, height, width))
        else:
            if [int(n) for n in outline["size"]] != [height, width]:
                raise ValueError(f"run lengths of {outline['size']}, in a picture of {[height, width]}")
            counts = outline["counts"]
            if isinstance(counts, list) and (min(counts, default=-1) < 0 or sum(counts) != height * width):
                raise ValueError("run lengths that do not fill the picture")
            runs = coco.frPyObjects(outline, height, width) if isinstance(counts, list) else outline
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its arrays are made as NumPy 1 wanted them
            return np.asarray(coco.decode(runs), bool)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise CaseError(
            Reason.DECLARATION,
            "an outline cannot be drawn",
            got=str(error)[:200] or type(error).__name__,
            expected="polygons of three points or more, or run lengths of the picture's size",
            advice="correct the annotation, or take it out",
        ) from error


def _check_polygons(polygons: list[Any]) -> None:
    if not polygons:
        raise ValueError("no polygon")
    for polygon in polygons:
        if len(polygon) < _LEAST or len(polygon) % 2 or not all(isfinite(number) for number in polygon):
            raise ValueError(f"a polygon of {len(polygon)} numbers")

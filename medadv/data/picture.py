"""A case that is a picture, read: its pixels, its label map or the objects in it, and the canvas it is laid on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from medadv.data.case import Case, Picture, Volume
from medadv.data.gate import check_numbers, check_objects
from medadv.data.outlines import painted
from medadv.data.pixels import CHANNELS, is_picture, numbered, photograph
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme

Size = tuple[int, int]


def is_picture_case(case: Case) -> bool:
    """Whether any image of a case is a picture, by its name."""
    return any(is_picture(path) for path in case.images.values())


def read_picture(case: Case) -> Volume:
    """Read a picture: ``x (3, h, w)`` float32, 0 to 255 as stored, channels in the order of ``case.images``.

    Truth ``(h, w)``, None for a case without a label map. With a canvas, both are padded at the bottom and the right,
    and ``Volume.mask`` says where the picture is.

    Raises:
        CaseError: the case cannot be used; its reason says why.
        ConfigError: a canvas without a void number in the scheme, or together with a mask file.
    """
    settings = case.picture or Picture()
    pixels = photograph(_file(case), settings.accept)
    order = [CHANNELS.index(name) for name in case.modalities]
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)[order])).float()
    _check_shown(case, x)
    content = settings.content or (x.shape[1], x.shape[2])
    _check_declared(case, settings, content)
    truth = _truth(case, settings, content)
    if case.objects is not None:
        check_objects(case.objects, content, case.scheme)
    mask = None if case.mask is None else _mask(case, case.mask, content)
    stored = dict.fromkeys(case.modalities, pixels.dtype)
    if settings.canvas is None:
        return Volume(case, x, truth, np.eye(4), stored, mask)
    if mask is not None or (truth is not None and case.scheme.void is None):
        raise ConfigError(
            "a canvas is the mask of its picture, and void in its label map",
            got=f"a mask file, and a scheme whose void is {case.scheme.void}",
            expected="no mask file, and a void number in the label scheme",
            advice="leave one of the two out, or declare void",
        )
    x, truth, mask = _on_canvas(case, settings, x, truth, content)
    return Volume(case, x, truth, np.eye(4), stored, mask)


def read_numbers(path: Path, shape: Size, scheme: LabelScheme) -> Int64[Tensor, "h w"]:
    """A label map of a picture's size, in numbers that the scheme knows.

    Raises:
        CaseError: the file is damaged, or the map is no such answer.
    """
    labels = torch.from_numpy(numbered(path))
    _check_size(Reason.LABEL_GRID, f"the label map {path.name}", labels, shape)
    check_numbers(labels, scheme)
    return labels


def _file(case: Case) -> Path:
    """The one file of a picture's three channels."""
    files = set(case.images.values())
    if sorted(case.modalities) != sorted(CHANNELS) or len(files) != 1:
        few = len(case.modalities) < len(CHANNELS)
        raise CaseError(
            Reason.MISSING_MODALITY if few else Reason.EXTRA_MODALITY,
            f"{case.case}: a picture has three channels, which lie in one file",
            got=f"{list(case.modalities)} in {len(files)} files",
            expected=f"{list(CHANNELS)}, in any order, in one file",
        )
    (path,) = files
    if not path.is_file():
        raise CaseError(Reason.MISSING_MODALITY, f"{case.case}: there is no file {path.name}")
    return path


def _check_shown(case: Case, x: Float[Tensor, "c h w"]) -> None:
    if bad := int((~torch.isfinite(x)).sum()):
        got = f"{bad} of {x.numel()} values"
        raise CaseError(Reason.NOT_FINITE, f"{case.case}: the picture holds NaN or infinite pixels", got=got)
    if bool((x == x[:, :1, :1]).all()):
        got = f"{x[:, 0, 0].tolist()} everywhere"
        raise CaseError(Reason.CONSTANT_MODALITY, f"{case.case}: the picture shows nothing", got=got)


def _check_declared(case: Case, settings: Picture, content: Size) -> None:
    """Boxes of another size of this picture would lie somewhere in it, and nobody would see."""
    if settings.declared not in (None, content):
        height, width = settings.declared or content
        raise CaseError(
            Reason.BOXES,
            f"{case.case}: its annotation is for a picture of another size",
            got=f"{width} × {height} (width × height)",
            expected=f"{content[1]} × {content[0]}, as the file has it",
            advice="annotate this file, or take the one that was annotated",
        )


def _truth(case: Case, settings: Picture, shape: Size) -> Int64[Tensor, "h w"] | None:
    if settings.painted is not None:
        labels = torch.from_numpy(painted(settings.painted))
        _check_size(Reason.LABEL_GRID, "what the outlines are drawn on", labels, shape)
        check_numbers(labels, case.scheme)
        return labels
    if case.label is None:
        return None
    if not case.label.is_file():
        raise CaseError(Reason.MISSING_LABEL, f"{case.case}: there is no file {case.label.name}")
    if settings.numbers is None:
        return read_numbers(case.label, shape, case.scheme)
    written = torch.from_numpy(numbered(case.label))
    _check_size(Reason.LABEL_GRID, f"the label map {case.label.name}", written, shape)
    table = settings.numbers
    if strange := sorted(set(torch.unique(written).tolist()) - set(table)):
        raise CaseError(
            Reason.LABEL_OUTSIDE_SCHEME,
            f"{case.label.name} holds numbers that the data set does not know",
            got=strange[:20],
            expected=sorted(table),
            advice="take the masks as they were published",
        )
    labels = torch.zeros_like(written)
    for number, into in table.items():
        labels[written == number] = into
    check_numbers(labels, case.scheme)
    return labels


def _mask(case: Case, path: Path, shape: Size) -> Bool[Tensor, "h w"]:
    if not path.is_file():
        raise CaseError(Reason.MISSING_MASK, f"{case.case}: there is no file {path.name}")
    inside = torch.from_numpy(numbered(path)) != 0
    _check_size(Reason.MASK_GRID, f"the mask {path.name}", inside, shape)
    if not bool(inside.any()):
        raise CaseError(Reason.MASK_EMPTY, "the mask is 0 everywhere", expected="not 0 where pixels may change")
    return inside


def _check_size(reason: Reason, what: str, found: Tensor, shape: Size) -> None:
    if tuple(found.shape) != shape:
        raise CaseError(
            reason,
            f"{what} does not have the picture's size",
            got=f"{found.shape[1]} × {found.shape[0]} (width × height)",
            expected=f"{shape[1]} × {shape[0]}",
            advice="check that it belongs to this picture; resize neither, and never a mask by interpolation",
        )


def _on_canvas(
    case: Case, settings: Picture, x: Float[Tensor, "c h w"], truth: Int64[Tensor, "p q"] | None, content: Size
) -> tuple[Float[Tensor, "c r s"], Int64[Tensor, "r s"] | None, Bool[Tensor, "r s"]]:
    """Pixels and label map at the upper left of the canvas, and where they are; an adversarial file has it already."""
    assert settings.canvas is not None
    (height, width), (h, w) = settings.canvas, content
    whole = (x.shape[1], x.shape[2])
    if h > height or w > width or (settings.content is not None and whole != settings.canvas):
        raise CaseError(
            Reason.DIMENSIONS,
            f"{case.case} does not fit onto its canvas",
            got=f"{whole[1]} × {whole[0]} (width × height)",
            expected=f"at most {width} × {height}",
            advice="declare a larger canvas: it is padded, never cut",
        )
    padded = x
    if settings.content is None:
        fill = [settings.fill[CHANNELS.index(name)] for name in case.modalities]
        padded = torch.tensor(fill, dtype=torch.float32)[:, None, None].repeat(1, height, width)
        padded[:, :h, :w] = x
    labels = None
    if truth is not None and case.scheme.void is not None:
        labels = torch.full((height, width), case.scheme.void)
        labels[:h, :w] = truth
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:h, :w] = True
    return padded, labels, mask

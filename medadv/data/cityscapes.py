"""Cityscapes folders: street scenes with dense label maps, a folder a city.

Source: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016; the table of labels is
cityscapesScripts' ``helpers/labels.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medadv.data.case import Case, Cohort, Picture
from medadv.data.census import Census, hidden, present
from medadv.data.listing import chosen
from medadv.data.pixels import CHANNELS
from medadv.errors import ConfigError, Reason
from medadv.labels import CITYSCAPES

JUDGED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids of the 19 classes that are judged, in the order of their train ids.

The published masks hold ids 0 to 33. Licence plates, −1, are not drawn in them: their pixels are their vehicles'.
"""
TRAIN_IDS = {id_: JUDGED.index(id_) if id_ in JUDGED else 255 for id_ in range(34)}
"""Id in ``…_labelIds.png`` → number in the scheme ``cityscapes``; 255 for the 15 that are not judged."""

_IMAGE = "_leftImg8bit.png"


def cityscapes_cohort(
    root: str | Path,
    split: str = "val",
    *,
    listing: str | Path | None = None,
    picture: Picture | None = None,
) -> Cohort:
    """The pictures of ``leftImg8bit/<split>/<city>`` with their masks of ``gtFine``, in the order of their ids.

    ``…_labelIds.png`` is read where it is there, else ``…_labelTrainIds.png``. The city is the stratum. Patients are
    unknown.

    Args:
        root: the folder that holds ``leftImg8bit`` and ``gtFine``.
        split: ``train``, ``val``; of ``test``, nobody has the masks.
        listing: which of them: a text file, one id a line, such as ``frankfurt_000000_000294``.
        picture: how pictures are taken from their files.

    Raises:
        ConfigError: no such folder or list.
    """
    root, settings = Path(root), picture or Picture()
    images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    pictures = sorted(path for path in images.glob(f"*/*{_IMAGE}") if not hidden(path.name))
    if Path(split).name != split or not pictures:
        raise ConfigError(
            f"no picture of Cityscapes in {images}",
            got=sorted(path.name for path in (root / "leftImg8bit").glob("*")) or f"no leftImg8bit in {root}",
            expected=f"leftImg8bit/{split}/CITY/CITY_000000_000000{_IMAGE}, and gtFine beside leftImg8bit",
            advice="name the folder that holds leftImg8bit and gtFine, and one of its splits",
        )
    names = [path.name.removesuffix(_IMAGE) for path in pictures]
    census = Census(names)
    for name, path in zip(names, pictures, strict=True):
        city = path.parent.name
        with census.at(name, f"{city}-{name}"):
            ids, trained = (masks / city / f"{name}_gtFine_{kind}.png" for kind in ("labelIds", "labelTrainIds"))
            derived = trained.is_file() and not ids.is_file()
            label = trained if derived else present(ids, name, "the mask", Reason.MISSING_LABEL)
            taken = replace(settings, numbers=None if derived else TRAIN_IDS)
            channels = dict.fromkeys(CHANNELS, path)
            census.take(Case(name, None, channels, label, CITYSCAPES, stratum=city, picture=taken))
    return chosen(census.cohort(CHANNELS, CITYSCAPES), None if listing is None else Path(listing))

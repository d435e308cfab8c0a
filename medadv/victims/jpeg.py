"""JPEG compression of pictures: written and read back by Pillow, to the very bytes that a file would hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims.preprocess import Image, Intensity

COLOURS = ("red", "green", "blue")
"""What the channels of a colour picture are called."""

LOUDEST = 2 * 255
"""What no attacked picture of 0 to 255 reaches: beyond, it is no such picture."""


@dataclass(frozen=True)
class Jpeg(Intensity):
    """A picture as it is after JPEG compression: rounded and clipped to 8 bits, written and read back.

    It was proposed as a defence (Dziugaite et al. 2016, arXiv:1608.00853). Rounding and quantisation have no useful
    gradient, and this step has none at all: it is attacked through ``StraightThrough``, and ``defended`` sees to it.
    Colours are sampled half as densely along both axes (4:2:0), as Pillow does by itself.

    Attributes:
        quality: libjpeg's, 1 to 95; 75 is usual.
        rgb: which channels are red, green and blue, in a picture of three; one channel is grey.

    Raises:
        ConfigError: another quality, or other channels.
    """

    quality: int = 75
    rgb: tuple[int, int, int] = (0, 1, 2)
    name: Literal["jpeg"] = "jpeg"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if type(self.quality) is not int or not 1 <= self.quality <= 95:
            raise ConfigError(
                "the quality of a JPEG file is a whole number",
                got=f"quality = {self.quality!r}",
                expected="1 to 95: above, compression is switched off in part",
            )
        if not isinstance(self.rgb, Sequence) or sorted(self.rgb) != [0, 1, 2]:
            raise ConfigError("red, green and blue are three channels", got=self.rgb, expected="such as (2, 1, 0)")
        object.__setattr__(self, "rgb", tuple(self.rgb))

    def __call__(self, x: Image) -> Image:
        """Compress and read back.

        Raises:
            VictimError: no picture of one or three channels with grey levels from 0 to 255.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise VictimError(
                "JPEG compresses pictures",
                got=f"{x.ndim - 2} axes and {x.shape[1]} channels",
                expected="two axes, and one channel or three",
            )
        stored = x.detach().cpu()
        low, high = torch.aminmax(stored)
        if 0 < high <= 1 or max(-low, high) > LOUDEST:
            raise VictimError(
                "JPEG knows grey levels from 0 to 255",
                got=f"values from {low:.3g} to {high:.3g}",
                advice="keep stored pixels in 0 to 255, and let the victim's own preprocessing scale them",
            )
        order = list(self.rgb) if x.shape[1] == 3 else [0]
        y = torch.empty_like(stored)
        y[:, order] = torch.stack([self._written(one[order]) for one in stored]).to(stored)
        return y.to(x.device)

    def _written(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        pixels = x.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        file = BytesIO()
        Pillow.fromarray(pixels if len(x) == 3 else pixels[..., 0]).save(file, "JPEG", quality=self.quality)
        with Pillow.open(file) as picture:
            read = np.array(picture, dtype=np.float32)
        return torch.from_numpy(read.reshape(pixels.shape)).permute(2, 0, 1)

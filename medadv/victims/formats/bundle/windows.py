"""How a bundle's network meets a volume: MONAI's inferers, and medadv's windows that do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer

from medadv.errors import VictimError
from medadv.victims.formats.bundle.config import Component, Config
from medadv.victims.window import Inference, SlidingWindow, WholeVolume

_SLIDING = ("roi_size", "overlap", "sw_batch_size", "mode", "sigma_scale")
_WHERE_IT_RUNS = ("sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps", "buffer_dim")


def windows(config: Config, axes: int) -> tuple[Inference, Inferer, dict[str, Any]]:
    """The bundle's ``inferer``: medadv's, MONAI's, and its settings as JSON.

    Args:
        config: the bundle's configuration.
        axes: of space, for a window of one number.

    Raises:
        VictimError: an inferer or an argument that is not understood, named by its key.
    """
    own = config.component("inferer")
    if own.name == "SimpleInferer":
        own.only()
        return WholeVolume(), SimpleInferer(), {"inferer": own.name}
    if own.name != "SlidingWindowInferer":
        raise own.refused(expected="SlidingWindowInferer or SimpleInferer")
    own.only((*_SLIDING, *_WHERE_IT_RUNS), padding_mode=("constant",), cval=(0,), with_coord=(False,))
    arguments = {name: own(name) for name in _SLIDING if own.has(name)}
    roi = arguments.get("roi_size")
    sizes = roi if isinstance(roi, list) else [roi] * axes
    sigma, overlap = _one(own, "sigma_scale", 0.125), _one(own, "overlap", 0.25)
    batch = own("sw_batch_size", 1)
    for argument, numbers in (("roi_size", [size for size in sizes if size is not None]), ("sw_batch_size", [batch])):
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise own.refused(argument, "whole numbers")
    window = SlidingWindow(
        roi=tuple(max(size or 0, 0) for size in sizes),  # MONAI takes None, 0 and less for the whole axis
        overlap=overlap,
        blend=own("mode", "constant"),
        batch=batch,
        sigma=sigma,
    )
    return window, own.built(SlidingWindowInferer, **arguments), {"inferer": own.name, **arguments}


def _one(own: Component, argument: str, default: float) -> float:
    """One number for all axes."""
    value = own(argument, default)
    several: Sequence[Any] = value if isinstance(value, list) else [value]
    if len(set(several)) != 1 or not isinstance(several[0], int | float):
        raise own.refused(argument, "one number for all axes")
    return float(several[0])


def axes_of_space(config: Config, metadata: Config, image: str) -> int:
    """How many axes the bundle's images have, as its metadata or its network says.

    Raises:
        VictimError: neither says.
    """
    shape = metadata.raw(f"network_data_format.inputs.{image}.spatial_shape")
    if isinstance(shape, list):
        return len(shape)
    network = config.component("network_def")
    for argument in ("spatial_dims", "dimensions"):
        if network.has(argument):
            return int(network(argument))
    raise VictimError(
        "the bundle does not say how many axes its images have",
        expected=f"network_data_format.inputs.{image}.spatial_shape in metadata.json, or spatial_dims in network_def",
    )

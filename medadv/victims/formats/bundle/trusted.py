"""A bundle that is trusted: the one place where MONAI's own parser is asked, and with it the code that a bundle is."""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from medadv.errors import VictimError
from medadv.victims.formats.bundle.config import Config
from medadv.victims.memory import is_full

_FAILURES = (ImportError, NameError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError)


class Trusted:
    """A bundle's configuration as MONAI's ``ConfigParser`` runs it, on the CPU.

    Args:
        root: the bundle's folder, from which its own ``scripts`` are imported.
        configuration, metadata: its files.

    Raises:
        VictimError: MONAI does not understand them.
    """

    def __init__(self, root: Path, configuration: Path, metadata: Path) -> None:
        from monai.bundle import ConfigParser

        self.root = root
        for name in [name for name in sys.modules if _is_of(name, root, here=True)]:
            del sys.modules[name]  # as it was when it was last run; its files may have changed
        importlib.invalidate_caches()
        self.parser = ConfigParser()
        with self._told("the configuration"):
            self.parser.read_config(str(configuration))
            self.parser.read_meta(str(metadata))
            self.parser["bundle_root"] = str(root)
            self.parser["device"] = "$torch.device('cpu')"
            self._read_no_files()

    def __call__(self, key: str) -> Any:
        """What MONAI makes of a key ``a.b.0``.

        Raises:
            VictimError: the bundle's code fails.
        """
        with self._told(key):
            return self.parser.get_parsed_content(key.replace(".", "::"))

    def network(self) -> nn.Module:
        """The network, with fresh weights.

        Raises:
            VictimError: ``network_def`` is none.
        """
        network = self("network_def")
        if not isinstance(network, nn.Module):
            raise VictimError("the bundle's network_def is no network", got=type(network).__name__)
        return network

    def digest(self) -> str:
        """SHA-256 over all that is run: configurations and the bundle's own modules."""
        state = hashlib.sha256()
        for path in sorted([*self.root.glob("configs/*"), *self.root.glob("**/*.py")]):
            if path.is_file():
                content = path.read_bytes()
                state.update(f"{path.relative_to(self.root).as_posix()} {len(content)}\n".encode() + content)
        return state.hexdigest()

    def _read_no_files(self) -> None:
        """A reader, which may want a library of its own, is not needed for volumes in memory."""
        transforms = Config(self.parser.get() or {}).raw("preprocessing.transforms")
        for i, transform in enumerate(transforms if isinstance(transforms, list) else []):
            if isinstance(transform, dict) and "reader" in transform:
                self.parser[f"preprocessing::transforms::{i}::reader"] = None

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """The bundle's own modules can be imported; what fails in them is told by its key."""
        others = {n: sys.modules.pop(n) for n in list(sys.modules) if _is_of(n, self.root, here=False)}
        sys.path.insert(0, str(self.root))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # MONAI's, of its own defaults
                yield
        except _FAILURES as error:
            if is_full(error):
                raise
            raise VictimError(
                f"MONAI cannot run the bundle at {key}",
                got=f"{type(error).__name__}: {error}",
                cause="a library that the bundle wants, or another version of MONAI than it was written for",
            ) from error
        finally:
            sys.path.remove(str(self.root))
            sys.modules.update(others)


def _is_of(name: str, root: Path, here: bool) -> bool:
    """Whether a loaded module has the name of one of this bundle's, and came from here, or from another bundle."""
    first = name.partition(".")[0]
    if not ((root / first).is_dir() or (root / f"{first}.py").is_file()):
        return False
    places = [getattr(sys.modules[name], "__file__", None), *getattr(sys.modules[name], "__path__", [])]
    return here == any(place and Path(place).is_relative_to(root) for place in places)

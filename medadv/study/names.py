"""What cases and patients are called in results: keyed pseudonyms, or their own ids where the data are public.

The key stays in the user's configuration folder and the table in the run's; both are readable by their owner alone.
This is no de-identification: voxels and headers of the user's files are not touched.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medadv.atomic import write_atomically, writing
from medadv.data.case import Case
from medadv.errors import RunError

KEY_BYTES = 32

_SAME_KEY = b"medadv: fingerprint of the key of pseudonyms"


def key_file() -> Path:
    """Where the user's own key of pseudonyms lies, whether it is made yet or not."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medadv" / "pseudonyms.key"


@dataclass(frozen=True)
class Names:
    """Id → the name that results give it.

    Attributes:
        key: of the pseudonyms; None for ids as they are.
    """

    key: bytes | None

    @classmethod
    def pseudonyms(cls) -> Names:
        """Pseudonyms by the user's own key, which is made on first use.

        Raises:
            RunError: the key can neither be made nor read.
        """
        path = key_file()
        if not path.exists():
            content = secrets.token_bytes(KEY_BYTES)
            write_atomically(path, lambda temporary: temporary.write_bytes(content), mode=0o600)
        with writing(path):
            key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise RunError(
                "the key of the pseudonyms is damaged",
                got=f"{len(key)} bytes",
                expected=f"{KEY_BYTES} bytes",
                advice=f"restore {path}; under a new key, cases get other names than in earlier studies",
            )
        return cls(key)

    @property
    def fingerprint(self) -> str | None:
        """What tells one key from another, and nothing of the key; None for ids as they are."""
        return None if self.key is None else hmac.new(self.key, _SAME_KEY, hashlib.sha256).hexdigest()

    def __getitem__(self, name: str) -> str:
        if self.key is None:
            return name
        return "c" + hmac.new(self.key, name.encode(), hashlib.sha256).hexdigest()[:12]

    def renamed(self, case: Case) -> Case:
        """The case under its name in the results."""
        return replace(case, case=self[case.case], patient=None if case.patient is None else self[case.patient])

    def disguised(self, text: str, words: Mapping[str, str]) -> str:
        """A message as results may hold it.

        Args:
            text: the message.
            words: ids and names of files → what they are told as. Whole words alone are replaced, the longest first:
                one may begin another, and the id ``1`` stands in many a number.
        """
        if self.key is None or not words:
            return text
        either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        return re.sub(rf"(?<![^\W_])(?:{either})(?![^\W_])", lambda found: words[found[0]], text)

    def keep(self, ids: Iterable[str], path: Path) -> None:
        """Write the table of names, unless ids stay as they are."""
        if self.key is not None:
            table = json.dumps({name: self[name] for name in sorted(ids)}, indent=1)
            write_atomically(path, lambda temporary: temporary.write_text(table, encoding="utf-8"), mode=0o600)

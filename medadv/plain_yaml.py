"""YAML as data: no tags, no aliases, no key given twice. A configuration may not run, hide or contradict itself."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

LARGEST = 1_000_000
"""Bytes that a configuration may have."""

# A date that is none and a number of too many digits are ValueErrors; brackets in brackets exhaust the parser.
NO_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What ``parse`` raises of a text that is not plain YAML."""


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases, a few of which nested make a small file huge; and tags, which no configuration needs."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for word, there in (("aliases", isinstance(event, yaml.AliasEvent)), ("tags", getattr(event, "tag", None))):
            if there:
                raise yaml.constructor.ConstructorError(None, None, f"{word} are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is given twice: YAML would take the last one silently."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                problem = f"the key {key!r} is given twice" if isinstance(key, Hashable) else f"{key!r} can be no key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """Read plain YAML; ``NO_YAML`` is what it raises."""
    return yaml.load(text, _Loader)

"""The README as an index of packages shows it, alone: what its relative links and pictures lead to is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]*)\)\n*")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")


def standalone(text: str, address: str) -> str:
    """The text with relative links made absolute under an address; without one, pictures go and links become words."""
    if address:
        return re.sub(r"\]\((?!https?:|#)([^)]*)\)", rf"]({address.rstrip('/')}/\1)", text)
    return _LINK.sub(r"\1", _PICTURE.sub("", text))


class ReadmeHook(MetadataHookInterface):
    """Hatchling's hook; ``address`` in ``pyproject.toml`` is where the repository can be read, once it has one."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": standalone(text, self.config.get("address", "")),
        }

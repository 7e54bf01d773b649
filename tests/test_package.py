"""What an index of packages shows of the project."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
RELATIVE = re.compile(r"\]\((?!https?:)")


@pytest.fixture
def standalone(monkeypatch):
    interface = SimpleNamespace(MetadataHookInterface=object)  # hatchling is there while the package is built only
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.standalone


def test_the_readme_of_an_index_page_has_no_relative_links(standalone):
    text = (ROOT / "README.md").read_text("utf-8")
    assert RELATIVE.search(text)
    alone = standalone(text, "")
    assert not RELATIVE.search(alone)
    assert "![" not in alone
    assert "Sinkhorn" in alone
    linked = standalone(text, "https://example.org/otdist")
    assert not RELATIVE.search(linked)
    assert "](https://example.org/otdist/docs/first-call.md)" in linked


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / target).exists(), target

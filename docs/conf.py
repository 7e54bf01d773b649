"""Sphinx: Markdown pages and the packages' own docstrings."""

import re

import otdist

project = "otdist"
author = "The otdist developers"
copyright = author
version = release = otdist.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "measured"]
html_theme = "furo"
html_title = f"otdist {release}"
# Pages are tested where they are written; a copy among the built ones would be collected again.
html_copy_source = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
# Shapes such as (..., d) stand where types do; as parameter fields Sphinx would look for a class called d.
napoleon_use_param = False
napoleon_use_rtype = False


def _plain_symbols(app, what, name, obj, options, lines):
    """Docstrings write |x|² and z* as mathematics does, which reStructuredText would take for markup."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = re.split(r"(``.*?``)", line)
            lines[number] = "".join(part if part.startswith("``") else _escaped(part) for part in parts)


def _escaped(text):
    """Every bar, and an asterisk that no other closes."""
    text = re.sub(r"(?<!\\)\|", r"\|", text)
    return text.replace("*", r"\*") if text.count("*") == 1 else text


def setup(app):
    app.connect("autodoc-process-docstring", _plain_symbols, priority=100)  # before napoleon's own at 500

"""Sphinx: Markdown pages, the packages' own docstrings, and a gallery of scripts that run while the manual is built."""

import re

from docutils import nodes
from latex2mathml.converter import convert

import otdist

project = "otdist"
author = "The otdist developers"
copyright = author
version = release = otdist.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "measured", "gallery"]
templates_path = ["templates"]
# A module's page has what its __all__ lists, wherever in its folder that is defined.
autosummary_ignore_module_all = False
autosummary_imported_members = True
# The gradients between clouds are one class, which Sphinx indexes once.
autosummary_context = {"repeated": [f"otdist.{name}.Gradients" for name in ("line", "sinkhorn", "sliced")]}
default_role = "py:obj"  # `w2_squared` in a docstring leads there
suppress_warnings = ["config.cache"]  # of sphinx-gallery's settings, which hold a class
# Formulas become MathML while the manual is built: browsers draw them without a script and without a network.
html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["static"]
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


def _mathml(writer, node, display):
    """A formula as MathML; rows of an equation are joined by Sphinx's own wrapping where there are several."""
    label = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    mathml = convert(node.astext(), display="block" if display else "inline")
    writer.body.append(f'<div class="math"{label}>{mathml}</div>' if display else mathml)
    raise nodes.SkipNode


def _is_internal(app, what, name, obj, skip, options):
    """What readers need not see: fields of a NamedTuple that say only that they are fields, scikit-learn's routing."""
    doc = getattr(obj, "__doc__", None) or ""
    routing = re.fullmatch(r"set_\w+_request|get_metadata_routing", name)
    return True if routing or doc.startswith("Alias for field number") else None


def setup(app):
    inline, block = (lambda writer, node, d=d: _mathml(writer, node, d) for d in (False, True))
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("autodoc-skip-member", _is_internal)
    app.add_css_file("manual.css")
    app.connect("autodoc-process-docstring", _plain_symbols, priority=100)  # before napoleon's own at 500

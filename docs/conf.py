"""Sphinx settings. Every warning is an error, so what they ignore is listed here."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import boltax

project = "boltax"
author = "the boltax authors"
copyright = "2026, the boltax authors"
release = version = boltax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
copybutton_exclude = ".linenos, .gp, .go"  # of examples: neither prompts nor what they print
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "boltax"
default_role = "code"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Names of other projects: their inventories are not at hand when the pages are built offline.
nitpick_ignore_regex = [(r"py:.*", r"(?!boltax\b).*")]
# Types of results that nobody makes or names.
nitpick_ignore = [
    ("py:class", "boltax._inspect._course.Course"),
    ("py:class", "boltax._inspect._fitting.Fitting"),
    ("py:class", "boltax._inspect._found.Arrays"),
    ("py:class", "boltax._loop._run.Run"),
    ("py:class", "boltax.checkpoint._best.Kept"),
    ("py:class", "boltax.data._array_loader.Epoch"),
    ("py:class", "boltax.loggers._base.NoExperiment"),
    ("py:class", "boltax.metrics._places.Place"),
    ("py:class", "boltax.metrics._sums.ConfusionMatrix"),
    ("py:class", "boltax.metrics._totals.IntTotal"),
    ("py:class", "boltax.optim._registry.Entry"),
    ("py:class", "boltax.parallel._placement.Placement"),
]


def public_names() -> dict[str, str]:
    """From where an object is defined (`boltax.optim._build.build`) to its public name."""
    names: dict[str, str] = {}
    for page in sorted((ROOT / "docs" / "api").glob("*.md"), key=lambda page: -len(page.stem)):
        module = importlib.import_module(page.stem)
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                names.setdefault(f"{value.__module__}.{value.__qualname__}", f"{page.stem}.{name}")
    return names


def link_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Points a reference to a private module at the page of the public name."""
    public = app.boltax_public_names.get(node.get("reftarget"))
    if public is None:
        return None
    domain = env.get_domain("py")
    role = node["reftype"]
    return domain.resolve_xref(env, node["refdoc"], app.builder, role, public, node, contnode)


def hide_private_bases(app: Any, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """Shows `object` in place of a base class of ours that has no page."""

    def has_page(base: Any) -> bool:
        origin = f"{getattr(base, '__module__', '')}.{getattr(base, '__qualname__', '')}"
        return not origin.startswith("boltax.") or origin in app.boltax_public_names

    bases[:] = [base for base in bases if has_page(base)] or [object]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.boltax_public_names = public_names()
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("missing-reference", link_public_name)

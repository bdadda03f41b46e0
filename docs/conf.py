"""How `make docs` builds the site: Sphinx with MyST (Markdown) and Furo; nothing is loaded from elsewhere.

The index is the table of contents: its headings and links make the sidebar. Reference pages are made from the code, see
`_site/reference.py`.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_site"), str(HERE.parent / "src")]

import sagesmith  # noqa: E402

project = "Sagesmith"
author = "the authors of Sagesmith"
copyright = "the authors of Sagesmith, Apache-2.0"  # noqa: A001
version = release = sagesmith.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_site"]
suppress_warnings: list[str] = []

# A link to a page, a heading or a name of ours that is not there fails the build (`make docs` makes warnings errors).
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:obj",
        ".*",
    ),  # backquotes in docstrings are code, linked where they name something that is documented
    ("py:.*", r"(?!sagesmith).*"),  # other libraries' names: their pages are elsewhere
    ("py:class", r"sagesmith\.sdk\._\w+\..*"),
]
default_role = "py:obj"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "Sagesmith"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"

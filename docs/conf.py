"""Configuration of the manual: Sphinx with MyST and Furo. `make docs` builds it offline; warnings are errors."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "forge-realtime"
author = "the forge-realtime team"
_VERSION_FILE = Path(__file__).parent.parent / "overlays/forge_realtime/_version.py"
version = release = re.findall(r'^__version__ = "(.*)"', _VERSION_FILE.read_text(encoding="utf-8"), re.MULTILINE)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_llms_txt"]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_show_copyright = False
html_title = f"forge-realtime {version}"
default_role = "code"
# Two classes have an attribute `operations`.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The prompt is not part of a command.
copybutton_prompt_text = "$ "


llms_txt_title = project
llms_txt_summary = "Python client for the Atlassian Forge Realtime API, for services in Forge Containers."


def mark_code(_app: object, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    """Make an indented paragraph after an empty line a code block, as readers of the source take it."""
    for number in range(len(lines) - 2, 0, -1):
        before, empty, after = lines[number - 1 : number + 2]
        if not empty and before[:1].strip() and after[:4] == "    ":
            lines[number : number + 1] = ["", "::", ""]


def setup(app: Sphinx) -> None:
    """Connect the function above, before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", mark_code, priority=100)

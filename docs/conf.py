"""The documents as a site: `make docs`."""

from importlib.metadata import version as _version

project = "Crossdock"
author = "The authors of Crossdock"
version = release = _version("crossdock")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True

html_theme = "furo"
html_title = f"Crossdock {version}"
html_copy_source = False

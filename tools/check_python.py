"""Says what is missing before `make setup` installs anything."""

import importlib.util
import sys

if sys.version_info < (3, 11):  # noqa: UP036 -- the point of this file is to run on older ones
    sys.exit(
        f"Crossdock needs Python 3.11 or newer; this is {sys.version.split()[0]}.\n"
        "Debian: apt-get install python3.11 python3.11-venv   macOS: brew install python@3.12\n"
        "Then: make setup PYTHON=python3.12"
    )
if importlib.util.find_spec("ensurepip") is None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    sys.exit(f"Python's venv module is missing. Debian: apt-get install python{version}-venv")

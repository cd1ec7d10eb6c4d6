"""The programs of `tools`, which are run and not installed, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

TOOLS: Final = Path(__file__).parents[1] / "tools"


def tool(name: str) -> ModuleType:
    """Return one of them."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

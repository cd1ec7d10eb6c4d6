"""`make chart-readme`: values in the chart's README.md, from schema and defaults."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[1] / "charts" / "crossdock"
_BEGIN: Final = "<!-- values: made by `make chart-readme` -->\n"
_END: Final = "<!-- end of values -->"


def rows(schema: dict[str, Any], values: Any, at: str = "") -> Iterator[str]:
    """Yield a line for each value: its path, default and meaning."""
    for name, inner in schema["properties"].items():
        path = f"{at}.{name}" if at else name
        if "properties" in inner:
            yield from rows(inner, values[name], path)
        elif name in values:
            yield f"| `{path}` | `{json.dumps(values[name])}` | {inner['description']} |"


def filled(readme: str) -> str:
    """Return a README with the table as it should be."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = ["| value | default | meaning |", "|---|---|---|", *rows(schema, values)]
    head, _, rest = readme.partition(_BEGIN)
    return head + _BEGIN + "\n" + "\n".join(table) + "\n\n" + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    path = CHART / "README.md"
    path.write_text(filled(path.read_text()))

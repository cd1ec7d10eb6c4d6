"""docs/kubectl.md has every command of the plugin, and every option that reaches the operator."""

from pathlib import Path

import typer.main
from typer.core import TyperGroup

from crossdock_operator.kubectl.cli import app
from crossdock_operator.page.pages import MOST_VIEWERS
from crossdock_operator.page.reviews import AT_ONCE, REVIEW_SECONDS

TEXT = (Path(__file__).parents[2] / "docs" / "kubectl.md").read_text()


def rows(section: str) -> set[str]:
    """Return the first cells of a section's tables."""
    body = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = {line.split("|")[1].strip().strip("`") for line in body.splitlines() if "|" in line}
    return cells - {"---", "command"}


def test_every_command_is_there() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert rows("The plugin") == set(group.commands)
    reaching = {
        name: {option for p in command.params for option in p.opts if option.startswith("--")}
        for name, command in group.commands.items()
    }
    common = reaching["ui"] & reaching["top"] - reaching["jobs"]
    assert common == {each for each in rows("The page") if each.startswith("--")}


def test_bounds_are_those_of_the_code() -> None:
    assert f"holds for {REVIEW_SECONDS:.0f} s" in TEXT
    assert f"{MOST_VIEWERS} viewers at once, {AT_ONCE} reviews at once" in " ".join(TEXT.split())

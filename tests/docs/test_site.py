"""The documents as a site, and the page of them that is made of the CRDs."""

import subprocess
import sys
from pathlib import Path

from crossdock_operator.api import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_site_is_made_without_a_warning(tmp_path: Path) -> None:
    """`make docs`. A page that no table of contents names is a warning, too."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
         "-d", tmp_path / "trees", DOCS, tmp_path / "site"],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "crds.html").is_file()


def test_the_reference_of_the_resources_is_as_the_types_say() -> None:
    """Else: `make crds`."""
    assert (DOCS / "crds.md").read_text() == reference.text()

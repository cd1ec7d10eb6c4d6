"""What goes into the image is what the lock file says."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import tooling

ROOT = Path(__file__).parents[2]
LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa
    # via crossdock
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:bb
    # via crossdock
six==1.17.0 \\
    --hash=sha256:cc \\
    --hash=sha256:dd
"""


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    return tooling.tool("wheels")


def test_entries_are_those_of_the_lock_with_all_their_hashes(wheels: ModuleType) -> None:
    found = wheels.locked({"six==1.17.0", "numpy==2.5.5"}, LOCK)
    assert found == LOCK[LOCK.index("numpy==2.5.5") :]


def test_what_the_lock_lacks_is_named(wheels: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"not in the lock: numpy==2\.6\.0; `make lock`"):
        wheels.locked({"six==1.17.0", "numpy==2.6.0"}, LOCK)


def test_the_image_needs_no_network_no_root_and_no_compiler() -> None:
    text = (ROOT / "Dockerfile").read_text()
    _, libraries, own, image = text.split("\nFROM ")
    for build in (libraries, own):
        assert "install --no-index" in build
        assert "apt" not in build
    assert "\nUSER 65532:65532\n" in image
    assert "\nRUN " not in image, "what is run there could leave tools behind"


def test_a_change_of_the_code_leaves_the_layer_of_the_libraries() -> None:
    _, libraries, own, image = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert re.findall("COPY (dist.*) /", libraries) == ["dist/wheels/libraries"]
    assert re.findall("COPY (dist.*) /", own) == ["dist/wheels/own"]
    assert re.findall(r"COPY --from=(\w+) ", image) == ["libraries", "own"]


def test_images_are_made_of_wheels_and_examples_alone() -> None:
    seen = ["*", "!dist/wheels", "!dist/example-wheels", "!examples/*/*.py"]
    assert (ROOT / ".dockerignore").read_text().split() == seen


def test_the_image_of_examples_needs_no_network_and_no_root() -> None:
    _, build, image = (ROOT / "examples" / "Dockerfile").read_text().split("\nFROM ")
    assert "pip install --no-index" in build
    assert "\nRUN " not in image
    assert "\nUSER " not in image, "it stays the user of the product's image"


def test_examples_do_not_hide_each_other_in_their_image() -> None:
    programs = [path.name for path in (ROOT / "examples").glob("*/*.py")]
    assert len(programs) == len(set(programs))

"""Words counted in stages are those that one process counts."""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_words_are_those_of_one_process(tmp_path: Path) -> None:
    example = shutil.copytree(ROOT / "examples" / "wordcount", tmp_path / "wordcount",
                              ignore=shutil.ignore_patterns("result"))  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("crossdock"), "run", "job.yaml"],
        cwd=example, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    library = Path(sysconfig.get_paths()["stdlib"])
    expected: Counter[str] = Counter()
    for source in library.rglob("*.py"):
        if "site-packages" not in source.parts:
            expected.update(re.findall(r"[A-Za-z_]+", source.read_text("utf-8", "replace")))
    lines = (example / "result" / "part-00000.tsv").read_text().splitlines()
    found = [(word, int(n)) for word, n in (line.split("\t") for line in lines)]
    assert found == sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))

"""What `make setup` needs of the system: looks, installs it as root on Debian, else says the line.

With the argument `chromium`: a browser for the test of the operator's page.

Runs on any Python, so that an old one gets an answer and not a syntax error.
"""

import importlib.util
import os
import shutil
import subprocess
import sys

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 -- the point of this file is to run on older ones
        sys.exit(
            "Crossdock needs Python 3.11 or newer; this is " + sys.version.split()[0] + ".\n"
            "Debian: apt-get install python3.11 python3.11-venv   macOS: brew install python@3.12\n"
            "Then: make setup PYTHON=python3.12"
        )
    missing = []
    if sys.argv[1:] == ["chromium"] and not any(map(shutil.which, BROWSERS)):
        missing.append("chromium")
    if importlib.util.find_spec("ensurepip") is None:
        missing.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    if shutil.which("curl") is None:
        missing.append("curl")
    if not missing:
        return
    apt = shutil.which("apt-get")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if apt is None or os.geteuid() != 0:
        sys.exit("Missing on this system. Debian, as root: " + " ".join(command))
    subprocess.run([apt, "update", "--quiet"], check=True)
    subprocess.run([apt, *command[1:]], check=True)


if __name__ == "__main__":
    main()

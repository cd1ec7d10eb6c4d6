"""References to variables in a container's command, args and env, as Kubernetes replaces them."""

import re
from collections.abc import Mapping
from typing import Final

_TOKEN: Final = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; what names no variable stays as it is, and `$$` becomes `$`.

    So `$$(NAME)` becomes `$(NAME)`. What has been put in is not looked at again.
    """

    def value(match: re.Match[str]) -> str:
        return "$" if match["escaped"] else variables.get(match["name"], match[0])

    return _TOKEN.sub(value, text)

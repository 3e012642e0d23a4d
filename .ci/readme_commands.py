"""Prints the commands of README.md's ```sh blocks, one a line; those of `make` are CI stages."""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def shell_commands(markdown: str) -> list[str]:
    """The commands of all ```sh blocks; a trailing backslash joins lines, comments are dropped."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    for command in shell_commands(README.read_text()):
        if not command.startswith("make "):
            print(command)

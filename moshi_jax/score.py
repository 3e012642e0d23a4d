"""`moshi-jax score FILE`: rewards of stored dialogues, or worked examples against their results.

The command of `rewards`, which also knows the worked examples of `grpo`.
"""

from collections.abc import Sequence

import grpo.examples
import rewards.__main__
import rewards.examples


def main(argv: Sequence[str] | None = None) -> int:
    """Score one file; arguments, result and errors as `rewards.__main__.main`."""
    kinds = {**rewards.examples.KINDS, **grpo.examples.KINDS}
    return rewards.__main__.main(argv, kinds)

"""`python -m moshi_jax`: the same as the `moshi-jax` command."""

import sys

from moshi_jax.cli import main

sys.exit(main())

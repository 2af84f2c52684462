"""``python -m mammoth_jax`` is the ``mammoth-jax`` command."""

import sys

from mammoth_jax.cli.main import main

sys.exit(main())

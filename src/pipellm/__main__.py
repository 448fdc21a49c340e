"""`python -m pipellm` is `pipellm`."""

import sys

from pipellm.cli import main

sys.exit(main())

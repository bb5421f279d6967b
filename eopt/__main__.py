"""`python -m eopt`."""

import sys

from eopt.tools.cli import main

sys.exit(main())

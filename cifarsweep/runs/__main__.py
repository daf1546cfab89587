"""`python -m cifarsweep.runs`."""

import sys

from cifarsweep.arguments import exit_code
from cifarsweep.runs.listing import main

if __name__ == "__main__":
    sys.exit(exit_code(main))

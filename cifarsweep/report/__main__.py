"""`python -m cifarsweep.report`."""

import sys

from cifarsweep.arguments import exit_code
from cifarsweep.report import main

if __name__ == "__main__":
    sys.exit(exit_code(main))

"""`python -m cifarsweep.report`."""

import sys

from cifarsweep.report import main
from cifarsweep.terminal.arguments import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))

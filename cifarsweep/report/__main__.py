"""`python -m cifarsweep.report`."""

import sys

from cifarsweep.report import main

if __name__ == "__main__":
    sys.exit(main())

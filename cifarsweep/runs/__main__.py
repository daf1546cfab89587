"""`python -m cifarsweep.runs`."""

import sys

from cifarsweep.runs.listing import main

if __name__ == "__main__":
    sys.exit(main())

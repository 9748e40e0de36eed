"""The mini study under a driver that gives a server up after three seconds."""

import sys

from mmrec.cli import main
from mmrec.study import database
from tests.e2e.mini import STUDY

if __name__ == "__main__":
    database.PATIENCE = 3.0
    sys.exit(main(STUDY))

"""Run by a test as `fit_slowly.py FOLDER SECONDS`, to be killed at work."""

import runpy
import sys
import time
from pathlib import Path

from inojax.train._checkpoint import Checkpoint

save = Checkpoint.save


def slow_save(self, step, state):
    time.sleep(float(sys.argv[2]))
    save(self, step, state)


Checkpoint.save = slow_save
fit_line = runpy.run_path(str(Path(__file__).with_name("fits.py")))["fit_line"]
fit_line(checkpoint=sys.argv[1])

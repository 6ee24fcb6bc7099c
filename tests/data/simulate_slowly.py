"""Run by a test as `simulate_slowly.py STORE SECONDS [INDEX PARTS]`, to be killed at work."""

import runpy
import signal
import sys
import time
from pathlib import Path

import jax.random as jr

from inojax import simulate
from inojax.data._store import Store

# A shell that runs the tests in the background lets its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
write = Store.write


def slow_write(self, chunk, states, status):
    time.sleep(float(sys.argv[2]))
    write(self, chunk, states, status)


Store.write = slow_write
make_decay = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["make_decay"]
share = tuple(map(int, sys.argv[3:])) or None
options = {"chunk_size": 8, "progress": False, "key": jr.key(0)}
simulate(make_decay(), 100, store=sys.argv[1], share=share, **options)

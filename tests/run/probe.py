"""Prints what a process is at its start, as one line of JSON, and ends with an error."""

import atexit
import gc
import json
import logging
import os
import random
import signal
import sys
import warnings

from tests.forkserver import import_all

if sys.argv[1:] == ["sleep"]:
    signal.pause()
import_all()  # which has been done before a fork

import numpy as np  # noqa: E402
import torch  # noqa: E402

state = {
    "words": sys.argv,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "name": __name__,
    "path": sys.path,
    "umask": os.umask(0o22),
    "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
    "garbage": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0],
    "warnings": [str(item) for item in warnings.filters],
    "loggers": [str(logging.getLogger(name).handlers) for name in (None, "lightning.pytorch")],
    "streams": [[s.fileno(), s.encoding, s.line_buffering] for s in (sys.stdout, sys.stderr)],
    "input": sys.stdin.read(),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "threads": [len(os.listdir("/proc/self/task")), torch.get_num_threads()],
    "modules": len(sys.modules),
    "random": [random.random(), np.random.random(), torch.initial_seed()],
}
print(json.dumps(state))
atexit.register(print, "at exit")
raise ValueError("the end")

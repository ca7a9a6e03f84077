"""What must hold where runs are isolated; arguments: a hidden, a shown and a writable place."""

import os
import sys

hidden, shown, written = sys.argv[1:]
assert sorted(name for name in os.listdir("/proc") if name.isdigit()) == ["1", "2"], (
    "other processes are visible"
)
interfaces = [
    line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]
]
assert interfaces == ["lo"], "there is a network"
assert not os.path.exists(hidden), "hidden files are visible"
assert os.path.exists(shown), "what is shown is not there"
open(os.path.join(written, "probe"), "w").write("x")
try:
    open(os.path.join(os.path.dirname(shown), "probe"), "w")
except OSError:
    pass
else:
    raise AssertionError("everything can be written")

"""What must hold where runs are isolated; arguments: a hidden, a shown and a writable place, and what is read."""

import sys
from pathlib import Path

hidden, shown, written, *read = [Path(argument) for argument in sys.argv[1:]]
assert sorted(entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()) == ["1", "2"], (
    "other processes are visible"
)
interfaces = [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
assert interfaces == ["lo"], "there is a network"
assert not hidden.exists(), "hidden files are visible"
assert shown.exists(), "what is shown is not there"
for path in read:
    list(path.iterdir()) if path.is_dir() else path.open("rb").close()
(written / "probe").write_text("x")
try:
    (shown.parent / "probe").write_text("x")
except OSError:
    pass
else:
    raise AssertionError("everything can be written")

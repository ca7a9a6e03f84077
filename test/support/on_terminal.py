"""Runs a command on a pseudo-terminal of so many columns: ``on_terminal.py COLUMNS COMMAND…``. Node has none itself."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

columns, *command = sys.argv[1:]
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, int(columns), 0, 0))
process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
os.close(theirs)
try:
    while chunk := os.read(ours, 65_536):
        sys.stdout.buffer.write(chunk)
except OSError:
    # Linux says EIO once the other end is closed.
    pass
sys.exit(process.wait())

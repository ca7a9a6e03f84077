"""Runs a program where it reaches nothing but what it is given.

``python -I isolated.py PLAN PROGRAM ARGUMENT…``, with PLAN as JSON (``IsolationPlan``). The program gets namespaces of
its own for processes, mounts, the network and shared memory: no other process is visible, nothing but loopback can be
reached, every file system is read-only but for ``written``, and ``hidden`` folders are empty but for what is ``shown``
in them. With ``user`` it runs as that account as well. Without ``namespaces``, where a container forbids them, what is
left is the account, and that it gains no rights.

Loading a model is where a stranger's file meets a large program. What it could do there, should a library have a hole,
is bounded by this and not by our care. Only the standard library: the file is run before anything else is imported.
Linux alone has these calls; everywhere else, and where the system forbids them, the exit code is ``UNAVAILABLE``.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypedDict

UNAVAILABLE = 97
"""The system does not allow it; nothing was started."""

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/securebits.h, linux/capability.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MOUNT_ATTR_RDONLY, AT_RECURSIVE, AT_FDCWD = 0x1, 0x8000, -100
SYS_MOUNT_SETATTR = 442  # the same on every architecture
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 28, 38
SECURE_NOROOT_LOCKED = 0x3
LAST_CAPABILITY = 63
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41


class IsolationPlan(TypedDict):
    """What the program may see and write; all paths absolute.

    ``read`` is what among ``shown`` it cannot do without: looked through for files that another account may not read.
    """

    hidden: list[str]
    shown: list[str]
    read: list[str]
    written: list[str]
    user: int | None
    namespaces: bool


libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Raises OSError with the call's own error when a libc function returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    checked(result, f"mount {kind or source} on {target}")


def set_read_only(target: str, *, read_only: bool, recursive: bool) -> None:
    """mount_setattr(2): changes this flag alone, whatever others a mount has."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY if read_only else 0, 0 if read_only else MOUNT_ATTR_RDONLY, 0, 0)
    flags = ctypes.c_uint(AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(len(attributes))
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), flags, attributes, size)
    checked(result, f"mount_setattr {target}")


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    checked(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def enter_namespaces() -> None:
    """Leaves the system's namespaces: as root at once, as anybody else within a user namespace."""
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    user, group = os.getuid(), os.getgid()
    checked(libc.unshare(flags | CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def enter_namespaces_as_root() -> None:
    """The same for a caller that will take another account: a user namespace of one account could not give it away."""
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET), "unshare")


def raise_loopback() -> None:
    """Processes that share the work out among GPUs talk over 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP_RUNNING))


def place_of(opened: int, path: Path) -> None:
    """Lets what is open be seen at its path again, where something covers it."""
    is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
    (path if is_folder else path.parent).mkdir(mode=0o755, parents=True, exist_ok=True)
    if not is_folder:
        path.touch()
    mount(f"/proc/self/fd/{opened}", str(path), None, MS_BIND | MS_REC)


def is_visible(opened: int, path: Path) -> bool:
    """Whether the path still leads to what is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except OSError:
        return False


def arrange_files(plan: IsolationPlan) -> None:
    """Lays out the file systems of the new mount namespace, outermost folders first.

    What is shown stays open while a folder above it is covered: by ``/proc/self/fd`` it can be mounted from there.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    written = {Path(path).resolve() for path in plan["written"]}
    # The interpreter may lie in somebody's home. Paths count as they are named and as they resolve: a virtual
    # environment's python is a link.
    named = [Path(path) for path in [*plan["shown"], *plan["written"], sys.prefix, sys.base_prefix]]
    places = {path for name in named if name.exists() for path in (name, name.resolve())}
    opened = {path: os.open(path, os.O_PATH) for path in places}
    hidden = {Path(path).resolve() for path in plan["hidden"] if Path(path).is_dir()} - places - {Path("/")}
    for path in sorted(places | hidden, key=lambda path: (len(path.parts), path)):
        if path in hidden:
            if path.is_dir():
                mount("tmpfs", str(path), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
        elif path in written or not is_visible(opened[path], path):
            place_of(opened[path], path)
    for handle in opened.values():
        os.close(handle)
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    set_read_only("/", read_only=True, recursive=True)
    # Where a link on the way to it was covered, a folder has a mount at the path by which it is named as well.
    for path in {*written, *map(Path, plan["written"]), Path("/dev/shm")}:
        set_read_only(str(path), read_only=False, recursive=False)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)


def give_away(folders: list[str], user: int) -> None:
    """Makes ``user`` the owner of what it is to write. Links are not followed: an earlier run may have left some."""
    for top in folders:
        os.chown(top, user, user, follow_symlinks=False)
        for folder, names, files in os.walk(top):
            for name in [*names, *files]:
                os.chown(Path(folder) / name, user, user, follow_symlinks=False)


def is_open_to_others(path: Path) -> bool:
    """Whether any account may read it, and all that lies in it."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return True
        if not stat.S_ISDIR(mode):
            return bool(mode & stat.S_IROTH)
        readable = stat.S_IROTH | stat.S_IXOTH
        return mode & readable == readable and all(is_open_to_others(entry) for entry in path.iterdir())
    except FileNotFoundError:
        return True


def drop_rights(user: int | None) -> None:
    """Gives up every capability for good, and the account when another one is named."""
    try:
        prctl(PR_SET_SECUREBITS, SECURE_NOROOT_LOCKED)
        for capability in range(LAST_CAPABILITY + 1):
            prctl(PR_CAPBSET_DROP, capability)
    except OSError as error:
        # EINVAL: past the kernel's last one. EPERM: an account without rights has none to give up, and gains none.
        if error.errno != errno.EINVAL and (error.errno != errno.EPERM or user is not None):
            raise
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forward_signals(to: int) -> None:
    """Passes on what the supervisor sends: the first process of a namespace gets no default handling of its own."""

    def handler(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(to, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def wait_for(child: int) -> int:
    """Waits for one child and reaps every other; returns its wait status."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == child:
            return status


def end_like(status: int) -> NoReturn:
    """Ends as the child did, by its exit code or its signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def begin(program: list[str], user: int | None) -> NoReturn:
    """Becomes the program."""
    drop_rights(user)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(program[0], program)


def first_process(plan: IsolationPlan, program: list[str], ready: int) -> NoReturn:
    """The first process of the namespace: arranges it, starts the program, and ends all of it with the program."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    working_directory = Path.cwd()
    try:
        arrange_files(plan)
        raise_loopback()
        os.chdir(working_directory)
    except OSError as error:
        print(f"isolation: {error}", file=sys.stderr, flush=True)
        os._exit(UNAVAILABLE)
    os.write(ready, b"1")
    os.close(ready)
    child = os.fork()
    if child == 0:
        begin(program, plan["user"])
    forward_signals(child)
    status = wait_for(child)
    # How a process ended by a signal cannot be shown by the first process of a namespace, which takes none.
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status))


def main(arguments: list[str]) -> NoReturn:
    """See the module's docstring."""
    plan: IsolationPlan = json.loads(arguments[0])
    program = arguments[1:]
    try:
        if plan["user"] is not None:
            closed = next((path for path in plan["read"] if not is_open_to_others(Path(path))), None)
            if closed is not None:
                print(
                    f"isolation: {closed} is for its owner alone, so the run keeps the account",
                    file=sys.stderr,
                    flush=True,
                )
                plan["user"] = None
        if os.geteuid() == 0:
            give_away(plan["written"], plan["user"] if plan["user"] is not None else 0)
        if not plan["namespaces"]:
            begin(program, plan["user"])
        if plan["user"] is None:
            enter_namespaces()
        else:
            enter_namespaces_as_root()
    except (OSError, AttributeError) as error:
        print(f"isolation: {error}", file=sys.stderr, flush=True)
        os._exit(UNAVAILABLE)
    arranged, ready = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(arranged)
        first_process(plan, program, ready)
    os.close(ready)
    forward_signals(first)
    is_ready = os.read(arranged, 1) == b"1"
    status = wait_for(first)
    code = os.waitstatus_to_exitcode(status)
    if is_ready and code > 128:
        number = code - 128
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    end_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])

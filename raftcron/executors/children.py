"""One child of the spawner: what is known of it, its fork and its exec.  When it is killed is not here."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Mapping
from typing import Any

from raftcron.executors import cgroups, runfiles
from raftcron.executors.output import Capture
from raftcron.executors.processes import MARK, look
from raftcron.wire import pack

ERROR_BYTES = 8 << 10  # the most that a child can say about why it could not exec

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def become_subreaper() -> None:
    """Descendants whose parent ends become our children, however they detach.  OSError if the kernel cannot."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


class Child:
    """A request that has been forked.  Instants are seconds of the boot clock."""

    __slots__ = (
        "capture",
        "cgroup",
        "exit_status",
        "id",
        "is_killed",
        "kill_after",
        "kill_at",
        "output",
        "output_name",
        "pid",
        "rescan_at",
        "self_stop",
        "stop_reason",
        "timeout_at",
    )

    def __init__(
        self,
        request: Mapping[str, Any],
        pid: int,
        output: int | None,
        capture: Capture,
        cgroup: str | None,
        now: float,
    ) -> None:
        self.id: str = request["id"]
        self.cgroup = cgroup  # all that it starts is in there; None where none could be made
        self.pid = pid
        self.output = output  # our end of the pipe; None once it is closed
        self.output_name: str | None = request["output"]
        self.capture = capture
        self.self_stop: bool = request["self_stop"]
        self.kill_after: float = request["kill_after"]
        self.timeout_at: float = now + request["timeout"]
        self.stop_reason: str | None = None  # the first one that began to stop it
        self.kill_at: float | None = None  # SIGKILL then; None as long as nobody has asked it to stop
        self.is_killed = False
        self.exit_status: int | None = None  # as wait gave it; set when the child itself is over
        self.rescan_at = 0.0  # when to look again for what it left behind


class Setting:
    """What every child of this spawner shares."""

    def __init__(self, run_directory: str, mark: str, boot: str, files: int | None) -> None:
        self.run_directory = run_directory
        self.mark = mark
        self.boot = boot
        self.null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.pid = os.getpid()
        # Children say here why they could not exec; close-on-exec, so user code never holds it.
        self.errors, self._complain = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.errors.setblocking(False)
        # One pipe and one file a child: take what is allowed, but let children start with what they would have had.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._files = (soft if files is None else files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def fork(self, request: Mapping[str, Any], output: int, cgroup: str | None) -> int:
        """Start the request with stdout and stderr at `output`; the child's pid.  OSError if it cannot be forked."""
        stdin = self._stdin(request["stdin"])
        try:
            pid = os.fork()
            if pid == 0:
                self._become(request, stdin, output, cgroup)
            return pid
        finally:
            if stdin != self.null:
                os.close(stdin)

    def _stdin(self, data: bytes) -> int:
        """A file in memory: however slowly it is read, nobody has to feed it."""
        if not data:
            return self.null
        descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _become(self, request: Mapping[str, Any], stdin: int, output: int, cgroup: str | None) -> None:
        """In the child: never returns."""
        what, hint = "cannot start", ""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # Python's own ways
                signal.signal(number, signal.SIG_DFL)
            if cgroup is not None:
                cgroups.enter(cgroup)
            what = "cannot write into the run directory"
            self._name_myself(request)
            what = "cannot set up its input and output"
            os.dup2(stdin, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
            environment: dict[str, str] = request["env"]
            if request["memory"] is not None:
                what = "cannot limit its memory"
                resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
            if request["user"] is not None or request["group"] is not None:
                what, hint = _names(request), "; only a node that runs as root can run commands as somebody else"
                environment = _become_somebody(request["user"], request["group"]) | environment
            if request["cwd"] is not None:
                what, hint = f"cannot enter the directory {request['cwd']!r}", "; make it on this node, or change `cwd`"
                os.chdir(request["cwd"])
            # Last, since a change of user clears it; and the spawner may be gone already.
            _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != self.pid:
                os._exit(127)
            argv: list[str] = request["argv"]
            what, hint = f"cannot run {argv[0]!r}", _hint(argv[0], environment)
            environment[MARK] = f"{self.mark}.{request['id']}"
            signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a signal that came meanwhile takes effect here
            os.execvpe(argv[0], argv, environment)  # noqa: S606  no shell on purpose
        except BaseException as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
            self._complain.send(pack([request["id"], f"{what}: {reason}{hint}"[: ERROR_BYTES // 4]]))
        finally:
            os._exit(127)

    def _name_myself(self, request: Mapping[str, Any]) -> None:
        """Before user code: what is not named here certainly never ran."""
        me = look(os.getpid())
        assert me is not None
        record = runfiles.child_record(me.pid, me.start, self.boot, request["run_id"], request["token"])
        runfiles.write(runfiles.child_path(self.run_directory, request["id"]), record)


def _names(request: Mapping[str, Any]) -> str:
    asked = [f"{kind} {request[kind]!r}" for kind in ("user", "group") if request[kind] is not None]
    return f"cannot become {' and '.join(asked)}"


def _hint(program: str, environment: dict[str, str]) -> str:
    """What to do about a program that cannot be run."""
    if "/" in program:
        return "; it has to be there on this node, and executable"
    return (
        f"; looked for in PATH, {environment.get('PATH', os.defpath)}: install it on this node, or give its full path"
    )


def _become_somebody(user: str | None, group: str | None) -> dict[str, str]:
    """The user with its groups, the given group in place of its first; or the group alone.  What the user's shell has.

    LookupError says who is not there.
    """
    import grp  # only where it is asked for
    import pwd

    try:
        entry = None if user is None else pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid if entry is not None else os.getgid()
    except KeyError as error:
        raise LookupError(f"{error.args[0]}: make it on this node, or name another one") from None
    if entry is None:
        os.setgroups([gid])
        os.setgid(gid)
        return {}
    os.initgroups(entry.pw_name, gid)
    os.setgid(gid)
    os.setuid(entry.pw_uid)
    shell = entry.pw_shell or "/bin/sh"
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": shell}

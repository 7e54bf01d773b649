"""Runs commands of otdist-vae one after another, each in a fork of its own, under a fault that is asked for.

Reads one JSON request a line, ``{"arguments": [...], "fault": {...}}``, and answers in one line with the exit status
(minus the signal of a kill), what was said, and how many times the command was about to change the file system. The
faults:

- ``{"kind": "kill", "at": k}``: SIGKILL before the k-th change.
- ``{"kind": "full", "at": k}``: from the k-th opening of a file for writing on, there is no space left.
- ``{"kind": "size", "bytes": n}``: no file can grow beyond n bytes; the write fails in the middle.
- ``{"kind": "read-only", "folder": path}``: nothing in the folder can be changed, not even by root.

Changes are seen by an audit hook: whatever library makes them, none is missed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import resource
import signal
import sys
import traceback

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault:
    """What is done to the command at its changes of the file system beneath `root`."""

    def __init__(self, kind: str | None, root: str, at: int = 0, folder: str = "") -> None:
        self.kind, self.root, self.at, self.folder = kind, root, at, folder
        self.n_changes = self.n_opened = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITING)
        if not writes and event not in CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(self.root):
            return
        self.n_changes += 1
        self.n_opened += writes
        if self.kind == "kill" and self.n_changes == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "full" and writes and self.n_opened >= self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        if self.kind == "read-only" and os.fspath(path).startswith(self.folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))


def run(arguments: list[str], fault: Fault) -> dict:
    """The command in this process, under the fault."""
    from otdist_vae.cli import main

    out, err = io.StringIO(), io.StringIO()
    sys.addaudithook(fault)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except BaseException:
            status = 1
            traceback.print_exc()
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "changes": fault.n_changes}


def forked(request: dict, root: str) -> dict:
    """The command in a fork, and what became of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        wanted = dict(request.get("fault") or {"kind": None})
        limit = wanted.pop("bytes", None)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        answer = run(request["arguments"], Fault(root=root, **wanted))
        os.write(writing, json.dumps(answer).encode())  # a pipe, which has no size
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as f:
        answer = f.read()
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        return {"status": -os.WTERMSIG(ended), "out": "", "err": "", "changes": 0}
    return json.loads(answer)


def serve(root: str) -> None:
    """Import everything once, on one thread, since threads do not survive a fork; then answer."""
    import torch

    torch.set_num_threads(1)
    import lightning.pytorch
    import sklearn.mixture  # noqa: F401
    import vae_quick

    from otdist_vae import callbacks, comparison, diagnostics, evaluation, plots, runs, training  # noqa: F401

    vae_quick.quicken()
    plots.png = lambda figure: b"a picture"  # drawing takes most of the time, and is not what is tested
    assert lightning.pytorch
    for line in sys.stdin:
        sys.__stdout__.write(json.dumps(forked(json.loads(line), root)) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    sys.path[:0] = sys.argv[2:]
    serve(sys.argv[1])

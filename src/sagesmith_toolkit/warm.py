"""A process that waits for one job with its libraries loaded: ``python -m sagesmith_toolkit.warm MODULE...``.

It imports the modules, says ``ready`` on file descriptor `SAGESMITH_WARM_FD` (or standard output), or
``ready uncompiled`` if Python had to compile some of them, then reads one line of JSON from standard input, ``{"argv": [...], "env": {...}, "cwd": "..."}`` (`cwd` is optional), and
becomes that command: `argv` is ``["python", "-m", MODULE, ...]`` or ``["python", FILE, ...]``, `env` is its whole
environment. The exit code is the command's. If standard input ends first, so does the process. It takes one
job and ends with it, so that no job sees what another left.

``python -m sagesmith_toolkit.warm --compile MODULE...`` does not wait: it imports the modules so that their bytecode is written,
calls `compile_missing` of those that have such a function, and ends. It is for a process that may write and that nobody waits for:
compiling takes half a minute.

What Python or a library reads only when it starts is set again by hand: PYTHONPATH, PYTHONUNBUFFERED, TZ and
the number of threads (OMP_NUM_THREADS, for libraries that were loaded without it and so use all of the machine).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import time
from typing import Any, Mapping, Sequence

__all__ = ["main", "run_job", "wait_for_job"]


def main(modules: Sequence[str]) -> None:
    """Load *modules*, wait for the job and run it; or compile what is missing (`--compile`)."""
    if modules[:1] == ["--compile"]:
        for name in modules[1:]:
            getattr(importlib.import_module(name), "compile_missing", bool)()
        return
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:  # the job will say so itself if it needs the module
            print("warm: cannot import %s: %s" % (name, error), file=sys.stderr, flush=True)
    gc.collect()
    gc.freeze()  # keeps the loaded libraries out of every later collection
    job = wait_for_job()
    if job is not None:
        run_job(job)


def wait_for_job() -> Mapping[str, Any] | None:
    """Say that this process is ready, and return the job, or None if nobody will send one."""
    descriptor = int(os.environ.pop("SAGESMITH_WARM_FD", "1"))
    try:
        os.write(descriptor, b"ready uncompiled\n" if _compiled_something() else b"ready\n")
    except BrokenPipeError:
        return None
    if descriptor > 2:
        os.close(descriptor)
    # Read bytes from the descriptor itself: what follows the line, if anything, is not swallowed by a buffer.
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            break
        line += piece
    if not line.strip():
        return None
    job: Mapping[str, Any] = json.loads(bytes(line))
    return job


def run_job(job: Mapping[str, Any]) -> None:
    """Become the command of *job*. Ends as the command ends: by return, SystemExit or an exception."""
    environ = {str(name): str(value) for name, value in job["env"].items()}
    os.environ.clear()
    os.environ.update(environ)
    if job.get("cwd"):
        os.chdir(job["cwd"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _apply_start_settings(environ)
    _, *arguments = [str(word) for word in job["argv"]]
    while arguments and arguments[0] in ("-u", "-I", "-E", "-s", "-B"):
        arguments.pop(0)
    if not arguments or (arguments[0] == "-m" and len(arguments) < 2):
        raise SystemExit("warm: the job's argv must be [python, -m, MODULE, ...] or [python, FILE, ...]")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


def _compiled_something() -> bool:
    """Whether a loaded module has no file with its bytecode, so that it will be compiled the next time, too.

    A module's `__uncompiled__` says the same of code that Python does not know of.
    """
    if any(getattr(module, "__uncompiled__", False) is True for module in list(sys.modules.values())):
        return True
    specs = (getattr(module, "__spec__", None) for module in list(sys.modules.values()))
    return any(
        spec.cached and str(spec.origin).endswith(".py") and not os.path.exists(spec.cached)
        for spec in specs
        if spec is not None and spec.has_location
    )


def _apply_start_settings(environ: Mapping[str, str]) -> None:
    paths = [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    sys.path[:0] = paths
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, write_through=bool(environ.get("PYTHONUNBUFFERED")))
    if "TZ" in environ:
        time.tzset()
    threads = environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if threads.isdigit() and int(threads) < (os.cpu_count() or 1) and "threadpoolctl" in sys.modules:
        sys.modules["threadpoolctl"].threadpool_limits(int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])

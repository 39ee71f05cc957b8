"""Several devices, and several processes, against one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("placement_programs.py")
PATIENCE = 300  # seconds, far more than the programs take


def started(*arguments):
    """A program of placement_programs.py, without this process's devices."""
    paths = str(ROOT), os.environ.get("PYTHONPATH", "")
    environment = dict(
        os.environ,
        JAX_PLATFORMS="cpu",
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_succeed(programs):
    """All of them end well; when one does not, none is left running."""
    try:
        outputs = [
            program.communicate(timeout=PATIENCE)[0] for program in programs
        ]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    for program, output in zip(programs, outputs, strict=True):
        assert program.returncode == 0, output[-4000:]


def test_eight_devices():
    assert_succeed([started("devices")])


def test_two_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    assert_succeed([started("process", str(i), port) for i in range(2)])

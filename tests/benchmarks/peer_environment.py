"""An environment in which the archived neural-tangents 0.6.5 still runs.

It needs a JAX of its time, which is not that of the book. The environment is
built on request, in the folder that ``make clean`` removes.
"""

import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path("_build/peer")
PEER = "neural-tangents==0.6.5"
PINS = {"jax": "0.4.35", "jaxlib": "0.4.35", "scipy": "1.13.1"}
OTHERS = ("numpy<2", "frozendict")


def python() -> str:
    """The interpreter of the environment, built if need be."""
    folder = "Scripts" if os.name == "nt" else "bin"
    interpreter = str((FOLDER / folder / "python").absolute())
    if not complete(interpreter):
        build(interpreter)
    return interpreter


def complete(interpreter: str) -> bool:
    """Whether the environment has the versions that the comparison needs."""
    name, version = PEER.split("==")
    program = (
        "from importlib.metadata import version\n"
        f"for name, wanted in {[(name, version), *PINS.items()]!r}:\n"
        "    assert version(name) == wanted, name\n"
        "import frozendict"
    )
    try:
        run = subprocess.run([interpreter, "-c", program], capture_output=True)
    except FileNotFoundError:
        return False
    return run.returncode == 0


def build(interpreter: str) -> None:
    """Make the environment, or exit and say which step did not work.

    The package itself without what it depends on: that includes TensorFlow.
    """
    print(f"building {FOLDER} for {PEER}", file=sys.stderr, flush=True)
    pins = [f"{name}=={version}" for name, version in PINS.items()]
    pip = [interpreter, "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
        [*pip, *pins, *OTHERS],
        [*pip, "--no-deps", PEER],
    ):
        if subprocess.run(command, stdout=sys.stderr).returncode:
            sys.exit(
                f"could not build {FOLDER}: {' '.join(command)} failed. "
                f"{PEER} needs Python 3.10 to 3.12 and the package index."
            )
    if not complete(interpreter):
        sys.exit(f"{FOLDER} does not hold {PEER} and {pins}: remove it")

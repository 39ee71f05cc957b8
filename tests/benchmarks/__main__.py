"""Run the benchmarks: ``make bench``.

Prints a table for each group as it finishes and writes benchmarks.json. Exits
with an error when a ratio that the book promises is not reached.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys

import jax
from tqdm import tqdm

from . import generators, jacobians, kernels, memory, peer
from .timing import record, table

# Memory first: a child's peak counts from that of the process that starts it.
GROUPS = {
    "memory": memory.rows,
    "kernels": kernels.rows,
    "jacobians": jacobians.rows,
    "generators": generators.rows,
    "peer": peer.rows,
}
ON_REQUEST = {"peer"}
REPORT = pathlib.Path("benchmarks.json")


def selected(names) -> list[str]:
    """Groups to run: those named, all, or all but those on request."""
    if not names:
        return [name for name in GROUPS if name not in ON_REQUEST]
    return [name for name in GROUPS if {name, "all"} & set(names)]


def group(name: str) -> str:
    """``name``, if there is such a group."""
    if name not in (*GROUPS, "all"):
        raise argparse.ArgumentTypeError(f"no group is called {name!r}")
    return name


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks")
    # Not by `choices`: before Python 3.12, no group at all is none of them.
    parser.add_argument(
        "groups", nargs="*", type=group, metavar="|".join([*GROUPS, "all"])
    )
    parser.add_argument(
        "--small", action="store_true", help="smaller sizes, to try the code"
    )
    parser.add_argument(
        "--points", type=int, default=10_000, help="N of the memory peak"
    )
    return parser.parse_args()


def main():
    """Run, print, write, judge."""
    options = arguments()
    device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    print(f"{device}, jax {jax.__version__}", flush=True)
    facts = {"device": device, "jax": jax.__version__, "small": options.small}
    rows = []
    for name in selected(options.groups):
        bar = tqdm(GROUPS[name](options), desc=name, unit="row", leave=False)
        found = list(bar)
        for _, block in itertools.groupby(found, lambda row: row.group):
            print(f"\n{table(list(block))}", flush=True)
        rows += found
        # After every group: a later one may end the program.
        report = {**facts, "rows": [record(row) for row in rows]}
        REPORT.write_text(json.dumps(report, indent=2))
    broken = [f"{r.name}: expected {r.promise}" for r in rows if not r.kept]
    if broken:
        sys.exit("\n".join(["", *broken]))


if __name__ == "__main__":
    main()

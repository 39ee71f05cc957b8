"""Programs of test_placement.py: JAX reads the number of devices once.

``devices`` runs on eight host devices, ``process NUMBER PORT`` is one of two
processes with two host devices each. All numbers are compared with those of
one device; a failure ends the program with a traceback.
"""

import os
import sys

MODE = sys.argv[1]
COUNT = {"devices": 8, "process": 2}[MODE]
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={COUNT} "
    + os.environ.get("XLA_FLAGS", "")
)

import jax  # noqa: E402

if MODE == "process":
    jax.distributed.initialize(f"localhost:{sys.argv[3]}", 2, int(sys.argv[2]))

import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import ntk_helpers as ntk  # noqa: E402
from ntk_helpers import kernel_function, tiles  # noqa: E402

rng = np.random.default_rng(3)
NET = ntk.FullyConnected(3, beta=0.2)
N, NOISE = 48, 0.1
tiles.TILE = 4  # several to a device, though the points are few


def points(count, sphere):
    x = rng.normal(size=(count, 5))
    x *= 5**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
    if not sphere:
        x *= np.exp(0.3 * rng.normal(size=(count, 1)))
    x[count - 1] = x[0]  # the same point on the first and the last device
    return x.astype(np.float32)


def close(got, expected, bound=1e-6):
    """Up to ``bound`` of the largest entry."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error < bound, error


def shards_close(got, expected):
    """The pieces that this process holds."""
    for shard in got.addressable_shards:
        close(shard.data, np.asarray(expected)[shard.index])


def check_rows(got, mesh):
    """Every device of ``mesh`` holds its share of the rows, in order."""
    assert got.sharding.mesh == mesh, got.sharding
    assert got.sharding.device_set == set(mesh.devices.flat)
    held = len(got) // mesh.size
    places = {device: i for i, device in enumerate(mesh.devices.flat)}
    for shard in got.addressable_shards:
        assert shard.data.shape == (held, got.shape[1]), shard.data.shape
        assert shard.index[0].start == held * places[shard.device]


def check_gram(got, expected, mesh):
    """Entries, and rows where they belong if the devices divide them."""
    shards_close(got, expected)
    if len(got) % mesh.size == 0:
        check_rows(got, mesh)
    else:
        assert got.sharding.is_fully_replicated and got.sharding.mesh == mesh


def check_products(placed, entries):
    vectors = rng.normal(size=(len(entries), 2)).astype(np.float32)
    matrix = ntk.kernel_matrix(NET, placed)
    close(matrix @ vectors, entries @ vectors)
    close(matrix.diagonal(), np.diag(entries))


def check_solve(placed, entries):
    """The error is below the residual times the condition number."""
    targets = rng.normal(size=(len(entries), 2)).astype(np.float32)
    found = ntk.kernel_matrix(NET, placed).solve(
        targets, jax.random.key(1), NOISE, 8, 1e-6, progress=False
    )
    exact = entries.astype(float) + NOISE * np.eye(len(entries))
    bound = 1e-5 * np.linalg.cond(exact)
    close(found.value, np.linalg.solve(exact, targets), min(bound, 1e-2))
    assert found.residual.max() < 1e-5


def put(x, mesh, *spec):
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))


def one_device(sphere):
    """Points, and their kernels."""
    # With so few points no function of the angle would be built.
    kernel_function.WORTHWHILE = 1 if sphere else 2**40
    x = points(N, sphere)
    return x, NET.kernels(x)


def devices():
    assert jax.device_count() == 8
    x, kernels = one_device(sphere=True)
    mesh = jax.make_mesh((8,), ("rows",))
    placed = put(x, mesh)
    for got, expected in zip(NET.kernels(placed), NET.kernels(x), strict=True):
        check_gram(got, expected, mesh)
    check_products(placed, np.asarray(kernels.ntk))

    x, (_, entries) = one_device(sphere=False)
    entries = np.asarray(entries)
    y = points(N // 4 + 1, sphere=False)
    pairs = np.asarray(NET.ntk(x, y))
    four = jax.devices()[:4]
    mesh = jax.make_mesh((2, 2), ("a", "b"), devices=four)
    placed = put(x, mesh, ("a", "b"))
    check_gram(NET.ntk(placed), entries, mesh)
    check_gram(NET.ntk(placed, y), pairs, mesh)
    check_gram(NET.ntk(y, placed), pairs.T, mesh)
    vectors = rng.normal(size=(len(x), 2)).astype(np.float32)
    close(ntk.kernel_matrix(NET, y, placed) @ vectors, pairs.T @ vectors)
    check_solve(placed, entries)

    mesh = Mesh(np.array(four).reshape(2, 2), ("a", "b"))  # of type Auto
    check_gram(NET.ntk(put(x, mesh, "b")), entries, mesh)

    # Rows that three devices do not divide.
    x, entries = x[:-1], entries[:-1, :-1]
    mesh = jax.make_mesh((3,), ("rows",), devices=four[:3])
    placed = put(x, mesh)
    check_gram(NET.ntk(placed), entries, mesh)
    check_products(placed, entries)


def process():
    assert jax.device_count() == 4 and jax.local_device_count() == 2
    x, (_, entries) = one_device(sphere=False)
    entries = np.asarray(entries)
    mesh = jax.make_mesh((4,), ("rows",))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    split = jax.make_array_from_callback(x.shape, sharding, x.__getitem__)
    for placed in (split, put(x, mesh)):
        kernel = NET.ntk(placed)
        check_gram(kernel, entries, mesh)
        assert len(kernel.addressable_shards) == 2
    check_products(split, entries)
    check_solve(split, entries)


{"devices": devices, "process": process}[MODE]()

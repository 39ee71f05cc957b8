r"""Training a generator against a critic, for chapters on collapse.

What a generator's kernel predicts shows in its training: which images it can
move apart, and how fast. The loop here keeps all that training needs in one
state, so that a run can be stopped, saved and gone on with, and gives the
same numbers as one that was not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .training import recorded, whole_rounds


class GanState(NamedTuple):
    """All that changes in training: a pytree of arrays.

    Parameters of the generator and of the critic, the states of both
    optimizers, the key that every step folds its number into, that number.
    """

    generator: Any
    critic: Any
    generator_memory: Any
    critic_memory: Any
    key: jax.Array
    step: jax.Array


@dataclass(frozen=True)
class Gan:
    r"""A generator G and a critic D with the logistic losses.

    One step draws ``batch_size`` images x and as many codes z, and changes

        D to decrease  E[log(1+e^{-D(x)})] + E[log(1+e^{D(G(z))})],
        G to decrease  E[log(1+e^{-D(G(z))})], z drawn anew,

    in this order. ``generator(params, codes)`` gives images, ``critic(params,
    images)`` numbers (n,), ``codes(key, n)`` n codes; the optimizers have the
    interface of optax. Source: Goodfellow et al. (2014), algorithm 1, with
    the loss of the generator that section 3 there recommends.
    """

    generator: Callable
    critic: Callable
    codes: Callable
    generator_optimizer: Any
    critic_optimizer: Any
    batch_size: int = 64

    def __post_init__(self):
        """Check the size of the batches."""
        checks.positive_integer(self.batch_size, "batch_size")

    def init(self, key, generator_params, critic_params) -> GanState:
        """State before the first step; ``key`` decides all that is drawn."""
        return GanState(
            generator_params,
            critic_params,
            self.generator_optimizer.init(generator_params),
            self.critic_optimizer.init(critic_params),
            key,
            jnp.zeros((), jnp.int32),
        )

    def train(
        self,
        state: GanState,
        images,
        steps: int,
        record: Callable | None = None,
        every: int | None = None,
        progress: bool = False,
    ):
        """``steps`` steps on ``images`` (n, ...) from ``state``.

        Returns the state after them and the records: ``record(state)`` now
        and after each ``every`` steps (by default all of them), stacked along
        a new first axis, or None without ``record``. ``progress`` shows a
        bar. Two calls give what one with the sum of their steps gives. Raises
        ``ValueError`` on images that are not finite, when the generator's
        images or the critic's outputs have another shape, and when ``steps``
        is not a multiple of ``every``.
        """
        images = checks.finite(checks.floating(images), "images")
        steps = checks.positive_integer(steps, "steps")
        every = checks.positive_integer(every or steps, "every")
        rounds = whole_rounds(steps, every)
        self._check_shapes(state, images)
        return recorded(
            lambda state: _advance(self, every, state, images),
            state,
            rounds,
            record or (lambda state: None),
            progress,
        )

    def _check_shapes(self, state: GanState, images):
        def made(state):
            fake = self.generator(
                state.generator, self.codes(state.key, self.batch_size)
            )
            return fake, self.critic(state.critic, fake)

        fake, scores = jax.eval_shape(made, state)
        expected = (self.batch_size, *images.shape[1:])
        if fake.shape != expected:
            raise ValueError(
                f"generator must give images of shape {expected}, got "
                f"{fake.shape}"
            )
        if scores.shape != (self.batch_size,):
            raise ValueError(
                f"critic must give numbers of shape ({self.batch_size},), got "
                f"{scores.shape}"
            )


def save_state(path, state: GanState) -> None:
    """Write ``state`` to the file ``path`` (NumPy's npz)."""
    leaves = jax.tree.leaves(_plain(state))
    np.savez(path, *map(np.asarray, leaves))


def load_state(path, like: GanState) -> GanState:
    """The state in the file ``path``; ``like``: any of the same structure.

    Raises ``ValueError`` where number, shapes or types of the arrays differ.
    """
    with np.load(path) as file:
        leaves = [file[name] for name in file.files]
    expected, structure = jax.tree.flatten(_plain(like))
    found = [(leaf.shape, leaf.dtype) for leaf in leaves]
    wanted = [(leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, expected)]
    if found != wanted:
        raise ValueError(
            f"the file must hold arrays of shapes and types {wanted}, got "
            f"{found}"
        )
    state = jax.tree.unflatten(structure, map(jnp.asarray, leaves))
    return state._replace(key=jax.random.wrap_key_data(state.key))


def _plain(state: GanState) -> GanState:
    return state._replace(key=jax.random.key_data(state.key))


@partial(jax.jit, static_argnums=(0, 1))
def _advance(gan: Gan, steps: int, state: GanState, images) -> GanState:
    return jax.lax.fori_loop(
        0, steps, lambda _, state: _step(gan, state, images), state
    )


def _step(gan: Gan, state: GanState, images) -> GanState:
    key = jax.random.fold_in(state.key, state.step)
    chosen, for_critic, for_generator = jax.random.split(key, 3)
    size = gan.batch_size
    real = images[jax.random.randint(chosen, (size,), 0, len(images))]
    fake = gan.generator(state.generator, gan.codes(for_critic, size))

    def critic_loss(params):
        on_real = jax.nn.softplus(-gan.critic(params, real))
        on_fake = jax.nn.softplus(gan.critic(params, fake))
        return jnp.mean(on_real) + jnp.mean(on_fake)

    def generator_loss(params):
        fake = gan.generator(params, gan.codes(for_generator, size))
        return jnp.mean(jax.nn.softplus(-gan.critic(critic, fake)))

    critic, critic_memory = _changed(
        gan.critic_optimizer, critic_loss, state.critic, state.critic_memory
    )
    generator, generator_memory = _changed(
        gan.generator_optimizer,
        generator_loss,
        state.generator,
        state.generator_memory,
    )
    memories = generator_memory, critic_memory
    return GanState(generator, critic, *memories, state.key, state.step + 1)


def _changed(optimizer, loss: Callable, params, memory):
    gradient = jax.grad(loss)(params)
    change, memory = optimizer.update(gradient, memory, params)
    return jax.tree.map(jnp.add, params, change), memory

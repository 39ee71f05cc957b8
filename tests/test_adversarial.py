from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_helpers as ntk


def linear(params, codes):
    return codes @ params


def bilinear(params, images):
    return images @ params


def codes(key, n):
    return jax.random.normal(key, (n, 2))


IMAGES = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32) + 2
SMALL = ntk.Gan(linear, bilinear, codes, optax.sgd(0.5), optax.sgd(0.25), 4)
START = SMALL.init(
    jax.random.key(3), jnp.ones((2, 3)) / 2, jnp.array([0.5, -1, 2])
)


def logistic(u):
    return 1 / (1 + np.exp(-u))


def test_one_step_is_the_gradient_of_the_stated_losses():
    """By hand: d/du log(1+e^u) is the logistic function."""
    key = jax.random.fold_in(START.key, 0)
    chosen, first, second = jax.random.split(key, 3)
    real = IMAGES[np.asarray(jax.random.randint(chosen, (4,), 0, 30))]
    generator, critic = map(np.asarray, (START.generator, START.critic))
    fake = np.asarray(codes(first, 4)) @ generator
    change = -(logistic(-real @ critic) @ real) / 4
    change = change + logistic(fake @ critic) @ fake / 4
    critic = critic - 0.25 * change
    z = np.asarray(codes(second, 4))
    back = -logistic(-z @ generator @ critic)
    generator = generator - 0.5 * np.outer(z.T @ back, critic) / 4
    state, _ = SMALL.train(START, IMAGES, 1)
    np.testing.assert_allclose(state.critic, critic, rtol=1e-5)
    np.testing.assert_allclose(state.generator, generator, rtol=1e-5)
    assert state.step == 1


def equal(a, b):
    a, b = (s._replace(key=jax.random.key_data(s.key)) for s in (a, b))
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(u, v) for u, v in leaves)


def test_stopped_saved_and_resumed(tmp_path):
    """With optimizers that remember, and equal to the last bit."""
    gan = replace(
        SMALL, generator_optimizer=optax.adam(0.1), batch_size=np.int64(4)
    )
    start = gan.init(START.key, START.generator, START.critic)
    whole, records = gan.train(
        start, IMAGES, 6, record=lambda s: s.step, every=3
    )
    np.testing.assert_array_equal(records, [0, 3, 6])
    half, nothing = gan.train(start, IMAGES, 3)
    assert nothing is None
    ntk.save_state(tmp_path / "state.npz", half)
    restored = ntk.load_state(tmp_path / "state.npz", start)
    assert equal(half, restored)
    again, _ = gan.train(restored, IMAGES, 3)
    assert equal(whole, again)
    other = gan.init(jax.random.key(4), START.generator, START.critic)
    assert not equal(whole, gan.train(other, IMAGES, 6, every=3)[0])


def test_progress(capsys):
    SMALL.train(START, IMAGES, 1, progress=True)
    captured = capsys.readouterr()
    assert "1/1" in captured.out and not captured.err


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="multiple of every = 2, got 3"):
        SMALL.train(START, IMAGES, 3, every=2)
    with pytest.raises(ValueError, match="images must be finite"):
        SMALL.train(START, IMAGES * np.nan, 1)
    with pytest.raises(ValueError, match=r"shape \(4, 2\), got \(4, 3\)"):
        SMALL.train(START, IMAGES[:, :2], 1)
    wide = START._replace(critic=jnp.ones((3, 1)))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(4, 1\)"):
        SMALL.train(wide, IMAGES, 1)
    with pytest.raises(ValueError, match="batch_size must be an integer"):
        replace(SMALL, batch_size=0)
    ntk.save_state(tmp_path / "state.npz", START)
    with pytest.raises(ValueError, match="shapes and types"):
        ntk.load_state(tmp_path / "state.npz", wide)


@cache
def digits():
    from sklearn.linear_model import LogisticRegression

    pixels, labels = ntk.datasets.digits()
    pixels = (2 * pixels - 1).astype(np.float32)
    return LogisticRegression(max_iter=300).fit(pixels, labels), pixels


def on_sphere(key, n):
    z = jax.random.normal(key, (n, 1, 1, 32))
    return 32**0.5 * z / jnp.linalg.norm(z, axis=3, keepdims=True)


def trained(nonlinearity, beta, seeds, normalization=None):
    """Relative variances and effective classes after 300 steps of SGD."""
    generator = ntk.Deconvolutional(
        shape=(1, 1),
        depth=3,
        width=32,
        beta=beta,
        nonlinearity=nonlinearity,
        normalization=normalization,
    )
    critic = ntk.FullyConnected(
        depth=3, width=256, nonlinearity=ntk.relu.normalized()
    )
    classifier, images = digits()

    def make(params, codes):
        return jnp.tanh(generator.apply(params, codes)).reshape(-1, 64)

    gan = ntk.Gan(
        make,
        lambda params, x: critic.apply(params, x)[:, 0],
        on_sphere,
        optax.sgd(1.0),
        optax.adam(1e-3, b1=0.5),
    )

    # The tests may run without the compiler's optimizations; this must not.
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": "2"})
    def run(key):
        keys = jax.random.split(key, 4)
        parameters = generator.init(keys[1], 32), critic.init(keys[2], 64)
        state = gan.init(keys[0], *parameters)
        state, _ = gan.train(state, images, 300)
        return make(state.generator, on_sphere(keys[3], 512))

    made = [np.asarray(run(jax.random.key(seed))) for seed in seeds]
    variances = [float(ntk.relative_variance(z, images)) for z in made]
    classes = [ntk.effective_classes(classifier.predict(z)) for z in made]
    return np.array(variances), np.array(classes)


def test_a_frozen_generator_collapses():
    """Facts' thresholds: below .3 and 3 classes, on two seeds."""
    variances, classes = trained(ntk.erf.standardized(), 0.8, [0, 1])
    assert (variances < 0.3).all() and (classes < 3).all()


def test_a_chaotic_generator_does_not_collapse():
    """Facts' thresholds: above .6 and 7 classes, on two seeds."""
    variances, classes = trained(ntk.relu.normalized(), 0.1, [0, 1])
    assert (variances > 0.6).all() and (classes > 7).all()


def test_batch_norm_everywhere_undoes_the_collapse():
    """The same frozen erf; thresholds of the chaotic generator."""
    everywhere = ntk.BatchNorm(everywhere=True)
    variances, classes = trained(
        ntk.erf.standardized(), 0.8, [0, 1], everywhere
    )
    assert (variances > 0.6).all() and (classes > 7).all()

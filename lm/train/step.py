"""The compiled part of training: pure functions `(state, batch) -> (state, metrics)` with explicit shardings.

Every number that doesn't change the program (learning rate, weight decay, seed, ...) is an argument of it, so runs
that differ only in those share one executable.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lm import sharding
from lm.config import lower
from lm.models import Model
from lm.nn import param
from lm.nn.kernels.low_precision import products
from lm.nn.kernels.platform import plain_forms, platform
from lm.objectives import Batch, Sums
from lm.sharding import Layout
from lm.train.optimizers import hidden_matrices
from lm.train.run import Training

Values = dict[str, float | int]  # numbers lifted out of a `Training`, by path
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """All that training carries from step to step. ema is {} where no average is kept."""

    step: Any  # [] int32, updates done
    params: param.Params
    opt: Any
    ema: param.Params


class Program:
    """A model's compiled initialisation, training step and evaluation on a layout.

    `training` is a shape (see `lm.config.lift`); its numbers come with each call as `values`.
    """

    def __init__(self, model: Model, training: Training, layout: Layout):
        self.model, self.training, self.layout = model, training, layout
        module = nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0)))
        self.graph, abstract = param.split(module)
        self.axes = param.axes(module)
        self.factors = training.parametrization.factors(self.axes, model, training.optimizer)
        layout.rules.check(self.axes)
        model.check_split(layout)
        self.params_sharding = sharding.shardings(abstract, self.axes, layout.rules, layout.mesh)
        self.state_sharding = self._state_sharding(abstract)
        whole = layout.replicated()
        with self._tracing():  # the options are the platform's that the layout is on
            options, once = training.execution.compiler_options(), run_once()
        self.init = jax.jit(self._init, out_shardings=self.state_sharding, compiler_options=once)
        self.step = jax.jit(
            self._step,
            donate_argnums=0,
            in_shardings=(self.state_sharding, layout.batch(), whole),
            out_shardings=(self.state_sharding, whole),
            compiler_options=options,
        )
        self.steps = jax.jit(
            self._steps,
            donate_argnums=0,
            in_shardings=(self.state_sharding, layout.batch(stacked=True), whole, whole),
            out_shardings=(self.state_sharding, whole),
            compiler_options=options,
        )
        self.evaluate = jax.jit(
            self._evaluate, in_shardings=(self.params_sharding, layout.batch(), whole), out_shardings=whole
        )

    def module(self, params: param.Params) -> Any:
        """The model as the step sees it: weights in the type of the computation."""
        return param.merge(self.graph, self.training.execution.cast(self.graph, params))

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        """Where a model is traced: activations know their layout, and layers which of their forms to take."""
        execution = self.training.execution
        with sharding.use(self.layout), plain_forms(execution.kernels == "plain"):
            yield

    def apply(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function(model, *arrays)` compiled, as a function of the parameters and the arrays, whole on each device."""

        def inside(params: param.Params, arrays: tuple[Any, ...]) -> Any:
            with self._tracing():
                return function(self.module(params), *arrays)

        whole = self.layout.replicated()
        compiled = jax.jit(inside, in_shardings=(self.params_sharding, whole), out_shardings=whole)
        return lambda params, *arrays: compiled(params, arrays)

    def abstract_state(self) -> State:
        """Shapes, types and shardings of the state, for restoring a checkpoint."""
        shapes = jax.eval_shape(self._init, 0)
        return jax.tree.map(
            lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, self.state_sharding
        )

    def advance(
        self, state: State, batches: Sequence[Mapping[str, np.ndarray]], values: Values, together: int = 1
    ) -> tuple[State, Metrics]:
        """A step for each of this host's batches, at most `together`, which are compiled as one program.

        The metrics have one value a step, and scalars where `together` is 1; what is beyond the batches is 0.
        """
        if together == 1:
            return self.step(state, self.layout.put(batches[0]), values)
        put = self.layout.put(stacked(batches, together), stacked=True)
        return self.steps(state, put, len(batches), values)

    def _state_sharding(self, abstract: param.Params) -> State:
        whole, layout = self.layout.replicated(), self.layout
        opt = jax.eval_shape(self._optimizer(0.0, self.training).init, abstract)
        axes = self.training.optimizer.state_axes(abstract, self.axes)
        opt_sharding = sharding.shardings(opt, axes, layout.rules, layout.mesh)
        return State(whole, self.params_sharding, opt_sharding, self.params_sharding if self.training.ema else {})

    def _optimizer(self, rate: Any, training: Training) -> optax.GradientTransformation:
        return training.optimizer.make(rate, self.axes, self.factors)

    def _init(self, seed: jax.Array | int, scale: jax.Array | float = 1.0) -> State:
        _, params = param.split(self.model.build(rngs=nnx.Rngs(params=jax.random.key(seed))))
        params = jax.tree.map(lambda p, hidden: p * scale if hidden else p, params, hidden_matrices(self.axes))
        opt = self._optimizer(0.0, self.training).init(params)
        # a copy, since the step donates both
        ema = jax.tree.map(jnp.copy, params) if self.training.ema else {}
        return State(jnp.zeros((), jnp.int32), params, opt, ema)

    def _step(self, state: State, batch: Batch, values: Values) -> tuple[State, Metrics]:
        training = lower(self.training, values)
        with self._tracing(), products(training.execution.products):  # what is looked at is of native products
            grads, sums = self._gradients(state.params, batch, training)
        with jax.named_scope("update"):
            state, changes = self._update(state, jax.tree.map(lambda g: g / sums.tokens, grads), training)
        metrics = {
            "loss": sums.nats / sums.tokens,
            "objective": sums.loss / sums.tokens,
            "accuracy": sums.correct / sums.tokens,
            **changes,
            **{name: value / sums.tokens for name, value in sums.watched.items()},
        }
        return state, metrics

    def _update(self, state: State, grads: param.Params, training: Training) -> tuple[State, Metrics]:
        """The state after one update, and how large gradient, update and parameters are."""
        norm = optax.global_norm(grads)
        if training.clip is not None:
            shrink = jnp.minimum(1.0, training.clip / norm)
            grads = jax.tree.map(lambda g: g * shrink, grads)
        rate = training.optimizer.learning_rate * training.schedule(state.step, training.steps)
        updates, opt = self._optimizer(rate, training).update(grads, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        ema = state.ema
        if training.ema is not None:
            pull = 1 - training.ema
            ema = jax.tree.map(lambda e, p: e + pull * (p - e), ema, params)
        changes = {
            "gradient_norm": norm,
            "update_norm": optax.global_norm(updates),
            "parameter_norm": optax.global_norm(params),
            "learning_rate": rate,
        }
        return State(state.step + 1, params, opt, ema), changes

    def _steps(self, state: State, batches: Batch, count: Any, values: Values) -> tuple[State, Metrics]:
        """A step for each of the first `count` of k stacked batches [k B ...]; metrics are [k], 0 beyond the count.

        One program whatever the count, so how steps are divided among calls changes no bit of the result.
        """

        k = batches["tokens"].shape[0]
        at: Any = lambda index: jax.tree.map(lambda x: x[index], batches)  # noqa: E731

        def one(index: Any, carry: tuple[State, Metrics, Batch]) -> tuple[State, Metrics, Batch]:
            state, kept, batch = carry
            state, metrics = self._step(state, batch, values)
            kept = jax.tree.map(lambda all, new: all.at[index].set(new), kept, metrics)
            return state, kept, at(jnp.minimum(index + 1, k - 1))

        shapes = jax.eval_shape(self._step, state, at(0), values)[1]
        kept = jax.tree.map(lambda m: jnp.zeros((k, *m.shape), m.dtype), shapes)
        # the batch is carried: sliced in the loop, XLA would slice it again in every inner loop that reads a position
        return jax.lax.fori_loop(0, count, one, (state, kept, at(0)))[:2]

    def _gradients(self, params: param.Params, batch: Batch, training: Training) -> tuple[param.Params, Sums]:
        """Gradients of the loss summed over the batch, part by part where `accumulate` says so."""

        def loss(params: param.Params, part: Batch) -> tuple[jax.Array, Sums]:
            sums = training.objective(self.module(params), part, training.execution)
            return sums.loss, sums

        gradient = jax.grad(loss, has_aux=True)
        if training.accumulate == 1:
            return gradient(params, batch)

        def one(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, part)), None

        # rows i, i + k, i + 2k, ... make part i, so that every device keeps the rows it holds
        parts = jax.tree.map(lambda x: x.reshape(-1, training.accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts)))
        return jax.lax.scan(one, zeros, parts)[0]

    def _evaluate(self, params: param.Params, batch: Batch, values: Values) -> Sums:
        training = lower(self.training, values)
        with self._tracing():
            return training.objective(self.module(params), batch, training.execution)


def stacked(batches: Sequence[Mapping[str, np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """Batches as one, filled up to `count` with the last."""
    filled = [*batches, *[batches[-1]] * (count - len(batches))]
    return {name: np.stack([batch[name] for batch in filled]) for name in filled[0]}


def run_once() -> dict[str, Any] | None:
    """Compiler options of a program that runs once: on CPU LLVM would take 10 s to make the random draws fast."""
    return {"xla_backend_optimization_level": 1} if platform() == "cpu" else None


@functools.lru_cache(maxsize=32)
def program(model: Model, training: Training, layout: Layout) -> Program:
    """The program of a shape; runs of equal shape get the same object, and with it the same executables."""
    return Program(model, training, layout)

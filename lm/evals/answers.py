"""Answers to held-out examples by every metric at once: which of them jumps, and which doesn't, is of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ConfigError, config, replace
from lm.data import Source
from lm.data.examples import as_batch
from lm.data.synthetic.task import Examples, Task
from lm.errors import UserError
from lm.evals.edit import edit_distances
from lm.evals.forward import Told, logits_of, of_task, teller
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


@config
class Answers(Measure):
    """A number an example, for `examples` held-out examples of `task` (None: the run's own):

    exact: 1 where the greedy answer is right, written by the model token after token (of a task that has work before
    its answer, only the answer proper has to be). edit_distance: tokens to insert, delete or replace to make the greedy
    tokens, work included, the right ones. token_accuracy: the share of tokens that are the likeliest, each given the
    right ones before it. logprob: nats of the whole, as a sum; brier: the mean over its tokens (see `forward.Told`).
    answer_tokens, examples: how many tokens an answer has on average, and how many examples there are.
    With `choices` candidates (the answers of following examples) choice: 1 where the right one is likelier than all
    others, and choice_normalised: where it is so by the mean over its tokens.
    """

    name: str = "answers"
    task: Task | None = None
    examples: int = 256
    choices: int = 0

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"examples={self.examples} must be at least 1")
        if self.choices < 0 or self.choices == 1:
            raise ConfigError(f"choices={self.choices} must be 0, or 2 and more candidates")

    def prepare(self, program: Program, data: Source) -> Look:
        source = of_task(data, "Answers")
        if self.task is not None:
            if self.task.symbols != source.task.symbols:
                raise UserError(f"measure {self.name}: {self.task} has other symbols than the run's {source.task}")
            try:
                program.model.check_context(self.task.length)
            except ConfigError as error:
                raise UserError(f"measure {self.name}: {self.task} is too long: {error}") from None
            source = replace(source, {"task": self.task})
        examples = source.test_examples(count=self.examples)
        proper = _proper(examples.answers, source.task.answer_tokens)
        batch, tell, write = as_batch(examples), teller(program), writer(program, examples)
        rivals = candidates(examples, self.choices) if self.choices else None

        def look(params: Any) -> Found:
            found = _by_token(tell(params, batch), examples.answers[:, 1:])
            written = np.asarray(write(params))
            wrong = written != examples.tokens
            found["exact"] = ~(wrong & proper).any(1)
            found["edit_distance"] = edit_distances(written, examples.tokens, examples.answers)
            if rivals is not None:
                found |= _choose(tell, params, rivals, len(wrong))
            values = {name: np.asarray(x, np.float64) for name, x in found.items()}
            counts = {"answer_tokens": float(examples.answers.sum(1).mean()), "examples": float(len(wrong))}
            means = {name: float(x.mean()) for name, x in values.items()}
            return Found(means | counts, {name: _short(x) for name, x in values.items()})

        return look


def _by_token(found: Told, answers: np.ndarray) -> dict[str, np.ndarray]:
    count = answers.sum(1)
    total = lambda x: np.where(answers, np.asarray(x), 0).sum(1)  # noqa: E731
    return {
        "token_accuracy": total(found.right) / count,
        "logprob": total(found.logprob),
        "brier": total(found.brier) / count,
    }


def _proper(answers: np.ndarray, last: int | None) -> np.ndarray:
    """The answers [n, length + 1] without the work before the last so many."""
    if last is None:
        return answers
    after = np.cumsum(answers[:, ::-1], axis=1)[:, ::-1]  # answers from here on
    return answers & (after <= last)


def _short(values: np.ndarray) -> list[Any]:
    """As JSON that is worth keeping: whole numbers as such, others to six digits."""
    if np.array_equal(values, np.rint(values)):
        return values.astype(int).tolist()
    return [float(f"{x:.6g}") for x in values]


# ---- writing -----------------------------------------------------------------------------------------------------


def writer(program: Program, examples: Examples) -> Callable[[Any], jax.Array]:
    """A compiled function of parameters: the examples' rows with every answer in the model's own words, the likeliest
    token each time [n, length + 1]. Rows are short: each token costs a pass over the whole row, and no cache."""
    asked = np.flatnonzero(examples.answers.any(0))
    first, last = int(asked.min()), int(asked.max())
    blank = np.where(examples.answers, 0, examples.tokens).astype(np.int32)
    batch, answers = as_batch(examples), examples.answers

    def write(model: Any, rows: jax.Array, mine: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        def one(at: Any, rows: jax.Array) -> jax.Array:
            given = {"tokens": rows[:, :-1], "positions": positions, "segments": segments}
            logits = jax.lax.dynamic_index_in_dim(logits_of(model, program, given), at - 1, axis=1, keepdims=False)
            now = jax.lax.dynamic_index_in_dim(rows, at, axis=1, keepdims=False)
            new = jnp.where(jax.lax.dynamic_index_in_dim(mine, at, axis=1, keepdims=False), jnp.argmax(logits, -1), now)
            return jax.lax.dynamic_update_index_in_dim(rows, new.astype(rows.dtype), at, axis=1)

        return jax.lax.fori_loop(first, last + 1, one, rows)

    compiled = program.apply(write)
    return lambda params: compiled(params, blank, answers, batch["positions"], batch["segments"])


# ---- choosing ----------------------------------------------------------------------------------------------------


def candidates(examples: Examples, count: int) -> Examples:
    """Each example with its own answer first, then with those of `count` - 1 following examples that differ from it
    and from each other and fit into the row: [n count, length + 1]. Raises UserError where there aren't so many, or
    an answer isn't in one piece."""
    tokens, answers = examples
    n, width = tokens.shape
    starts, ends = answers.argmax(1), width - answers[:, ::-1].argmax(1)
    if (ends - starts != answers.sum(1)).any():
        raise UserError(
            f"choices={count}: these examples have questions between their answers, and none is a whole answer to "
            "choose; take choices=0"
        )
    said = [tuple(row[mask].tolist()) for row, mask in zip(tokens, answers, strict=True)]
    rows, masks = np.zeros((n, count, width), tokens.dtype), np.zeros((n, count, width), bool)
    for i in range(n):
        room = width - starts[i]
        different = dict.fromkeys([said[i], *(one for k in range(1, n) if len(one := said[(i + k) % n]) <= room)])
        if len(different) < count:
            raise UserError(
                f"choices={count}: an example has only {len(different)} different answers to choose from; "
                "lower choices or raise examples"
            )
        for c, one in zip(range(count), different, strict=False):
            end = starts[i] + len(one)
            rows[i, c, : starts[i]] = tokens[i, : starts[i]]
            rows[i, c, starts[i] : end], masks[i, c, starts[i] : end] = one, True
    return Examples(rows.reshape(-1, width), masks.reshape(-1, width))


def _choose(tell: Any, params: Any, rivals: Examples, n: int) -> dict[str, np.ndarray]:
    found = tell(params, as_batch(rivals))
    answers = rivals.answers[:, 1:]
    score = np.where(answers, np.asarray(found.logprob), 0).sum(1).reshape(n, -1)
    length = answers.sum(1).reshape(n, -1)
    return {"choice": _first_is_best(score), "choice_normalised": _first_is_best(score / length)}


def _first_is_best(score: np.ndarray) -> np.ndarray:
    """Equally good isn't: a model that knows nothing would always be right."""
    return score[:, 0] > score[:, 1:].max(1)

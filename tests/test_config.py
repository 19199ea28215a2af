"""Configs as values: JSON, hashes, checks, paths, overrides, differences, and numbers taken out and put back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import (
    ConfigError,
    Count,
    Scalar,
    _classes,
    _module_of,
    config,
    content_hash,
    diff,
    dumps,
    get,
    lift,
    loads,
    lower,
    override,
    replace,
    walk,
)
from lm.data import KJV, Data, Jsonl, TaskData, Text
from lm.data.synthetic import ModularArithmetic
from lm.evals import Answers
from lm.interpret import Fourier, Heads
from lm.models import Decoder, Execution
from lm.nn import ALiBi, Block, Llama3Scaling, Mask, RoPE, YaRN, gqa, mha, swiglu
from lm.train import AdamW, Cosine, Lion, Muon, Recording, Run, Training

pytestmark = pytest.mark.core


@config
class Part:
    """A part of `Whole`."""

    rate: Scalar = 0.5


@config
class Other(Part):
    """Another kind of part."""

    words: tuple[str, ...] = ()


@config
class Whole:
    """One field of every kind."""

    whole: int = 1
    real: float = 1.0
    flag: bool = False
    word: str = "a"
    choice: Literal["left", "right", "none"] = "left"
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[float, ...] = ()
    table: dict[str, tuple[int, ...]] = field(default_factory=dict)
    anything: Any = None
    part: Part | tuple[Part, ...] | None = None
    optional: Scalar | None = None
    seed: Count = 0


@config
class Checked:
    """Two fields that must agree, and a check that subclasses inherit."""

    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigError(f"low={self.low} must be below high={self.high}")


@config
class Narrow(Checked):
    """No check of its own."""

    width: int = 1


def run(**changes: Any) -> Run:
    model = Decoder(vocab=256, width=32, layers=2, block=Block(mixer=gqa(8, kv_heads=2), ff=swiglu(64)))
    return replace(Run(model=model, train=Training(steps=10)), changes)


thorough = settings(max_examples=60, deadline=None, derandomize=True)
reals = st.floats(allow_nan=False)
parts = st.builds(Part, rate=reals) | st.builds(Other, rate=reals, words=st.lists(st.text()).map(tuple))
keys = st.text().filter(lambda k: k != "type")
anything = st.none() | st.booleans() | st.integers() | st.text() | parts
wholes = st.builds(
    Whole,
    whole=st.integers(),
    real=reals | st.integers(-(2**60), 2**60),
    flag=st.booleans(),
    word=st.text(),
    choice=st.sampled_from(["left", "right"]),
    pair=st.tuples(st.integers(), reals),
    many=st.lists(reals),
    table=st.dictionaries(keys, st.lists(st.integers())),
    anything=anything | st.lists(anything) | st.dictionaries(keys, anything),
    part=st.none() | parts | st.lists(parts).map(tuple),
    optional=st.none() | reals,
    seed=st.integers(),
)


class TestJSON:
    @thorough
    @given(wholes)
    def test_round_trip_gives_an_equal_value_and_text(self, value: Whole) -> None:
        text = dumps(value)
        assert loads(text) == value
        assert dumps(loads(text)) == text
        assert loads(dumps(value, indent=2)) == value

    @thorough
    @given(wholes, wholes)
    def test_equal_values_and_only_they_have_equal_hashes(self, a: Whole, b: Whole) -> None:
        assert content_hash(a) == content_hash(replace(a, {}))
        assert (a == b) == (content_hash(a) == content_hash(b))

    def test_every_field_and_the_salt_count(self) -> None:
        base = run()
        changed = [
            {"seed": 1},
            {"model.width": 64},
            {"train.clip": None},
            {"model.block.mixer.position.base": 1e6},
            {"train.optimizer": Lion()},
        ]
        hashes = {content_hash(base), content_hash(base, "salt")} | {content_hash(run(**c)) for c in changed}
        assert len(hashes) == len(changed) + 2
        assert base.id("data") != base.id("other data")

    def test_the_hash_is_the_same_in_another_process(self) -> None:
        code = "from lm.config import content_hash; from lm.nn import gqa; print(content_hash(gqa(8, kv_heads=2)))"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == content_hash(gqa(8, kv_heads=2)) == "6cd2fa129291c346"

    def test_numbers_written_differently_are_one_config(self) -> None:
        assert dumps(Part(rate=1)) == dumps(Part(rate=1.0))
        assert content_hash(Part(rate=-0.0)) == content_hash(Part(rate=0.0))
        assert type(Part(rate=1).rate) is float
        assert Whole(many=[1, 2]).many == (1.0, 2.0)

    def test_infinities_are_strict_json(self) -> None:
        text = dumps(Whole(real=math.inf, many=(-math.inf,)))
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert loads(text) == Whole(real=math.inf, many=(-math.inf,))

    def test_a_class_of_another_package_is_imported_by_its_tag(self, tmp_path: Any, monkeypatch: Any) -> None:
        source = (
            "from lm.config import config\nfrom lm.nn import Activation\n"
            "@config\nclass Cube(Activation):\n    power: int = 3\n    def __call__(self, x):\n        return x ** 3\n"
        )
        (tmp_path / "elsewhere.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        text = '{"type":"elsewhere:Cube","power":5}'
        made = loads(text)
        assert made.power == 5 and type(made).__module__ == "elsewhere"
        assert loads(dumps(made)) == made
        assert json.loads(dumps(made))["type"] == "elsewhere:Cube"

    def test_a_process_that_imported_nothing_reads_a_run_of_any_parts(self) -> None:
        measures = (Answers(), Heads(), Fourier())
        whole = run(data=TaskData(task=ModularArithmetic(modulus=7)), record=Recording(measures=measures, snapshots=1))
        code = (
            "import sys; from lm.config import dumps, loads; assert 'lm.data' not in sys.modules;"
            "print(dumps(loads(sys.stdin.read())))"
        )
        out = subprocess.run([sys.executable, "-c", code], input=dumps(whole), capture_output=True, text=True)
        assert out.stdout.strip() == dumps(whole), out.stderr

    def test_every_class_of_ours_is_found_by_its_name(self) -> None:
        ours = {name: cls.__module__ for name, cls in _classes.items() if cls.__module__.startswith("lm.")}
        assert len(ours) > 50
        assert {name: _module_of(name) for name in ours} == ours
        for name in ("Config", "Attention.*", "Attentio", "lm.nn", ""):
            assert _module_of(name) is None

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"type":"Attentoin"}', "did you mean 'Attention'?"),
            ('{"type":"ALiBi","max_exponnet":1}', "did you mean 'max_exponent'?"),
            ('{"type":"ALiBi","max_exponent":"8"}', "ALiBi.max_exponent must be float, got '8' (str)"),
            ('{"type":"no_such_module:Thing"}', "can't be imported"),
            ('{"type":["a"]}', "must be a name"),
            ('{"type":"ALiBi"', "no JSON"),
        ],
    )
    def test_what_is_no_config_is_refused_by_name(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            loads(text)
        assert said in str(error.value)

    def test_values_that_are_no_json_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="can't hold"):
            dumps(Whole(anything=object()))
        with pytest.raises(ConfigError, match="other than 'type'"):
            dumps(Whole(anything={"type": 1}))


class TestChecks:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: gqa(8, kv_heads=3), "kv_heads=3 must divide heads=8"),
            (lambda: Mask(windov=3), "did you mean 'window'?"),
            (lambda: Mask(window="3"), "Mask.window must be int or None, got '3' (str)"),
            (lambda: Mask(window=True), "Mask.window must be int or None"),
            (lambda: mha(8, position=YaRN(factor=2.0, original_length=9)), "must be RelativePosition or None"),
            (lambda: Execution(remat="some"), "must be one of 'none', 'dots', 'full', 'offload', got 'some'"),
            (lambda: Whole(real=math.nan), "Whole.real is NaN"),
            (lambda: Whole(pair=(1,)), "must have 2 items, got 1"),
            (lambda: Whole(table={1: ()}), "a key of Whole.table must be str"),
            (lambda: Whole(table={"a": (1, "b")}), "Whole.table.a[1] must be int"),
            (lambda: Decoder(vocab=1, width=8, layers=1), "missing 1 required keyword-only argument: 'block'"),
            (lambda: Narrow(low=3), "low=3 must be below high=1"),
        ],
    )
    def test_the_message_names_the_field_and_what_fits(self, make: Any, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            make()
        assert said in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_config_can_not_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            Part().rate = 1.0  # type: ignore[misc]

    def test_two_classes_of_one_name_are_refused(self) -> None:
        fake = type("RoPE", (), {"__module__": "lm.elsewhere", "__annotations__": {}})
        with pytest.raises(ConfigError, match="two configs are called RoPE"):
            config(fake)
        assert type(loads(dumps(RoPE()))) is RoPE


class TestPaths:
    def test_get_reaches_fields_items_and_entries(self) -> None:
        value = Whole(part=(Part(rate=0.25), Other()), table={"a": (1, 2)})
        assert get(value, "part.0.rate") == 0.25
        assert get(value, "table.a.1") == 2

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("model.block.mixr", "did you mean 'mixer'?"),
            ("modle.block", "did you mean 'model'?"),
            ("model.width.deeper", "model.width is 32, which has no field 'deeper'"),
            ("model.block.mixer.mask.window.size", "model.block.mixer.mask.window is None"),
        ],
    )
    def test_a_wrong_path_says_where_it_left_the_road(self, path: str, said: str) -> None:
        for reach in (
            lambda: get(run(), path),
            lambda: replace(run(), {path: 1}),
            lambda: override(run(), [f"{path}=1"]),
        ):
            with pytest.raises(ConfigError) as error:
                reach()
            assert said in str(error.value)

    def test_items_and_entries_that_are_not_there(self) -> None:
        value = Whole(part=(Part(),), table={"alpha": ()})
        with pytest.raises(ConfigError, match="part has items 0 to 0, not '1'"):
            get(value, "part.1.rate")
        with pytest.raises(ConfigError, match="did you mean 'alpha'"):
            get(value, "table.alpah")

    def test_replace_changes_that_and_nothing_else(self) -> None:
        before = run()
        after = replace(before, {"model.block.mixer.kv_heads": 4, "train.optimizer.weight_decay": 0})
        found = diff(before, after)
        assert found == {"model.block.mixer.kv_heads": (2, 4), "train.optimizer.weight_decay": (0.1, 0.0)}
        assert before == run()

    def test_changes_that_need_each_other_are_checked_together(self) -> None:
        after = replace(run(), {"model.block.mixer.heads": 4, "model.block.mixer.kv_heads": 4})
        assert get(after, "model.block.mixer") == gqa(4, kv_heads=4)
        assert override(Checked(), ["low=5", "high=6"]) == Checked(low=5, high=6)
        with pytest.raises(ConfigError, match="must divide heads"):
            replace(run(), {"model.block.mixer.kv_heads": 3})

    def test_the_checks_of_all_that_is_around_run(self) -> None:
        with pytest.raises(ConfigError, match="accumulate=3 must divide"):
            replace(run(), {"train.accumulate": 3})
        with pytest.raises(ConfigError, match="must divide width"):
            override(run(), ["model.width=33"])

    def test_diff_of_unlike_components_is_one_entry(self) -> None:
        assert diff(run(), run()) == {}
        old, new = RoPE(), ALiBi()
        assert diff(run(), run(**{"model.block.mixer.position": new})) == {"model.block.mixer.position": (old, new)}
        a, b = Whole(table={"a": (1,), "b": (2,)}), Whole(table={"a": (1,), "b": (3,)})
        assert diff(a, b) == {"table.b.0": (2, 3)}

    def test_walk_meets_every_leaf_once(self) -> None:
        value = Whole(part=(Part(rate=0.25), Other(words=("x",))), table={"a": (1, 2)})
        leaves = [(path, leaf) for path, leaf, _ in walk(value)]
        assert len({path for path, _ in leaves}) == len(leaves)
        assert {path: get(value, path) for path, _ in leaves} == dict(leaves)
        assert {"part.0.rate": 0.25, "part.1.words.0": "x", "table.a.1": 2, "word": "a"}.items() <= dict(leaves).items()


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "path", "expected"),
        [
            ("seed=3", "seed", 3),
            ("train.clip=none", "train.clip", None),
            ("train.clip=2", "train.clip", 2.0),
            ("train.optimizer.learning_rate=1e-3", "train.optimizer.learning_rate", 1e-3),
            ("train.execution.layers=scan", "train.execution.layers", "scan"),
            ("train.execution.remat=none", "train.execution.remat", "none"),
            ("train.execution=Execution(layers=scan, remat='dots')", "train.execution.layers", "scan"),
            ("model.tied=false", "model.tied", False),
            ("model.block.mixer=Attention(heads=4, kv_heads=1)", "model.block.mixer", gqa(4, kv_heads=1)),
            ("model.block.mixer.position=ALiBi", "model.block.mixer.position", ALiBi()),
            ("model.block.mixer.position = None", "model.block.mixer.position", None),
            (
                "model.block.mixer.position=RoPE(base=5e5, scaling=Llama3Scaling)",
                "model.block.mixer.position",
                RoPE(base=5e5, scaling=Llama3Scaling()),
            ),
            ("data.corpus=Text(path=books/*.txt)", "data.corpus", Text(path="books/*.txt")),
            ("train.optimizer=Muon(rms=none)", "train.optimizer", Muon(rms=None)),
        ],
    )
    def test_text_becomes_what_the_field_takes(self, text: str, path: str, expected: Any) -> None:
        if "*" in text:  # such a path is no literal inside parentheses: it needs quotes there
            text = text.replace("books/*.txt", "'books/*.txt'")
        found = get(override(run(), [text]), path)
        assert found == expected and type(found) is type(expected)

    @pytest.mark.parametrize("word", ["2", "none", "books/*.txt", "a=b", "KJV", "Text", "it's", "x y", "(1, 2)", ""])
    def test_a_string_needs_no_quotes_whatever_it_looks_like(self, word: str) -> None:
        assert override(Whole(), [f"word={word}"]).word == word

    def test_a_quoted_string_loses_its_quotes(self) -> None:
        assert override(Whole(), ["word='none'"]).word == "none"

    def test_tuples_entries_and_things_of_any_type(self) -> None:
        base = Whole(part=(Part(), Part()), table={"a": (1,)}, anything={"x": 1})
        changed = override(
            base,
            ["part.1=Other(words=(one, 'two'))", "table.a=(4, 5)", "many=[1, 2]", "anything.x=RoPE(base=2)"],
        )
        assert changed.part == (Part(), Other(words=("one", "two")))
        assert changed.table == {"a": (4, 5)} and changed.many == (1.0, 2.0)
        assert changed.anything == {"x": RoPE(base=2.0)}
        assert override(base, ["anything.x=word"]).anything == {"x": "word"}

    def test_keys_with_dots_are_reached(self) -> None:
        base = Whole(anything={"a": 1, "a.b": Part(), "train.clip": 2.0})
        changed = override(base, ["anything.a=3", "anything.a.b.rate=4", "anything.train.clip=none"])
        assert changed.anything == {"a": 3, "a.b": Part(rate=4.0), "train.clip": None}
        assert get(changed, "anything.a.b.rate") == 4.0
        assert "anything.a.b.rate" in lift(base)[1]

    def test_one_after_another(self) -> None:
        changed = override(run(), ["train.optimizer=Lion", "train.optimizer.b1=0.5"])
        assert changed.train.optimizer == Lion(b1=0.5)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("seed", "not of the form path=value"),
            ("model.widht=3", "did you mean 'width'?"),
            ("model.width=wide", "model.width must be int, got 'wide'"),
            ("model.width=2.5", "model.width must be int, got 2.5"),
            ("model.block.mixer.position=Rope", "did you mean 'RoPE'?"),
            ("model.block.mixer.position=alibi", "did you mean 'ALiBi'?"),
            ("model.block.mixer.position=Rope(base=3)", "did you mean 'RoPE'?"),
            ("model.block.mixer.position=RoPE(bass=3)", "did you mean 'base'?"),
            ("model.block.mixer.position=RoPE(3)", "takes its fields by name"),
            ("model.block.mixer=RoPE()", "model.block.mixer must be Mixer"),
            ("train.execution.layers=scann", "must be one of 'auto', 'scan', 'unroll'"),
            ("train.clip=1+", "train.clip must be float or None"),
            ("train.clip=max(1, 2)", "no config type 'max'"),
        ],
    )
    def test_the_message_names_the_path_or_the_nearest(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            override(run(), [text])
        assert said in str(error.value)

    def test_code_is_not_run(self) -> None:
        with pytest.raises(ConfigError):
            override(Whole(), ["whole=__import__('os').getpid()"])


class TestLift:
    def test_runs_that_differ_in_numbers_have_one_shape(self) -> None:
        a = Training(steps=10, optimizer=AdamW(learning_rate=1e-3), schedule=Cosine(warmup=1), ema=0.9)
        b = Training(steps=20, optimizer=AdamW(weight_decay=0.0), schedule=Cosine(warmup=5), clip=3.0, ema=0.99)
        (shape, values), (other_shape, other_values) = lift(a), lift(b)
        assert shape == other_shape and hash(shape) == hash(other_shape)
        assert values.keys() == other_values.keys() and values != other_values
        assert lower(shape, values) == a and lower(other_shape, other_values) == b

    def test_all_other_differences_change_the_shape(self) -> None:
        base = Training(steps=10)
        others = [
            replace(base, {"clip": None}),  # no number at all is another program
            replace(base, {"ema": 0.9}),
            replace(base, {"optimizer": Lion()}),
            replace(base, {"accumulate": 2}),
            replace(base, {"execution.remat": "full"}),
        ]
        shapes = [lift(training)[0] for training in [base, *others]]
        assert len(set(shapes)) == len(shapes)

    @thorough
    @given(wholes)
    def test_what_is_put_back_is_the_same_config(self, value: Whole) -> None:
        shape, values = lift(value)
        assert lower(shape, values) == value
        assert "seed" in values and ("optional" in values) == (value.optional is not None)
        assert "whole" not in values and "real" not in values

    def test_numbers_inside_tuples_of_parts_are_lifted(self) -> None:
        shape, values = lift(Whole(part=(Part(rate=0.25), Other(rate=0.75))))
        assert values == {"part.0.rate": 0.25, "part.1.rate": 0.75, "seed": 0}
        marked = object()
        assert get(lower(shape, {"part.1.rate": marked}), "part.1.rate") is marked


def test_lm_config_imports_nothing_heavy() -> None:
    code = "import sys, lm.config; print([m for m in ('jax', 'numpy', 'flax', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_paths_of_a_data_config_survive() -> None:
    for corpus in (KJV(), Text(path="a b/c.txt"), Jsonl(path="x.jsonl.gz", field="content")):
        assert loads(dumps(Data(corpus=corpus))).corpus == corpus

"""The command `lm plan`."""

import pytest

from lm import cli

EXPERIMENT = '''
"""Which is better on nonsense?"""
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, mha, mqa
from lm.sweep import Ablation
from lm.train import Run, Training

experiment = Ablation(
    base=Run(
        model=Decoder(vocab=256, width=16, layers=2, block=Block(mixer=mha(4), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path="text"), length=32, batch=4),
        train=Training(steps=4),
    ),
    at="model.block.mixer",
    arms={"MHA": mha(4), "MQA": mqa(4), "MHA again": {"train.optimizer.learning_rate": 0.5}},
)
'''


def lm(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nonsense.py"
    path.write_text(EXPERIMENT)
    return str(path)


def test_a_step_is_compiled_for_as_many_devices_as_the_target_has(capsys):
    shape = ("model.width=48", "model.layers=1", "train.execution.compute=float32")
    code, out, _ = lm(capsys, "ladder-0.3m", *shape, "--target", "h100x2", "--batch", "4", "--length", "32")
    assert code == 0
    assert "chosen: --mesh" in out and "by XLA for 2 virtual CPU devices" in out and ": fits" in out
    assert "counted in the compiled program" in out and "total by the cost model" in out
    assert "cost: $5.98 an hour" in out


def test_each_program_of_an_experiment_is_planned_once(capsys, file):
    code, out, _ = lm(capsys, file, "--target", "v5e-4", "--mesh", "fsdp=2,tensor=2", "--no-compile")
    assert code == 0
    assert "MHA, MHA again: " in out and "\nMQA: " in out and out.count("time of a step") == 2
    assert "by the cost model: it wasn't asked for" in out and "by the textbook's formulas" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("llama-7", "--target", "h100x8"), "there is no preset 'llama-7'; did you mean"),
        (("gpt2-124m", "--target", "v5e-5"), "there is no slice 'v5e-5'"),
        (("ladder-0.3m", "--target", "h100x2", "--mesh", "fsdp=4"), "needs 4 devices"),
        (("ladder-0.3m", "--target", "h100x2", "--mesh", "tensor=2", "--no-compile"), "can't be split 2 ways"),
        (("llama-7b", "--target", "h100x2", "--no-compile"), "nothing that was tried fits"),
    ],
)
def test_errors_are_one_line(capsys, arguments, says):
    code, _, err = lm(capsys, *arguments)
    assert code == 1 and err.count("\n") == 1
    assert says in err

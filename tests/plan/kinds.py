"""Compiles a training step of every kind of attention for a TPU and says which kernels are in it. A process of its own,
since libtpu reads its settings as it is loaded."""

from __future__ import annotations

import json
import os

from lm.models import Decoder, Execution
from lm.nn import MLA, Block, Differential, Mask, gqa, mha, mqa, swiglu
from lm.plan.step import Step
from lm.plan.worker import _devices, _kernels
from lm.sharding import layout
from lm.train import Training

KINDS = {
    "MHA": mha(4),
    "GQA": gqa(4, kv_heads=2),
    "MQA": mqa(4),
    "window": mha(4, mask=Mask(window=64)),
    "MLA": MLA(heads=4, kv_rank=32, nope_width=32, rope_width=16, value_width=32),
    "differential": Differential(heads=2, kv_heads=2),
}
TOPOLOGY, MESH = "v5e:2x2", "fsdp=2,tensor=2"


def main() -> None:
    where = layout(MESH, devices=_devices({"topology": TOPOLOGY}))
    training = Training(steps=1, execution=Execution(compute="bfloat16", remat="full"))
    found = {}
    for name, mixer in KINDS.items():
        model = Decoder(vocab=256, width=128, layers=1, block=Block(mixer=mixer, ff=swiglu(128)))
        compiled = Step(model, training, 4, 128).lowered(where).compile()
        analysis = compiled.memory_analysis()
        total = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
        found[name] = {"kernels": sorted(_kernels(compiled.as_text())), "bytes": total}
    with os.fdopen(int(os.environ["ANSWER"]), "w") as out:
        json.dump(found, out)


if __name__ == "__main__":
    main()

"""Encoders load transformers' checkpoints: the same logits and hidden states, and the way back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from safetensors.numpy import load_file, save_file  # noqa: E402

from lm import hub  # noqa: E402
from lm.hub import HubError  # noqa: E402
from tests.parity.checks import (  # noqa: E402
    LENGTH,
    LOGITS,
    VOCAB,
    assert_close,
    assert_same_model,
    outputs,
    reference,
    some_tokens,
)

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LENGTH,
    "layer_norm_eps": 1e-2,
    **NO_DROPOUT,
}
ROBERTA = {**BERT, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1}
NARROW = {**BERT, "embedding_size": 12}
DISTILBERT = {
    "vocab_size": VOCAB,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": LENGTH,
}
MODERN = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "local_attention": 10,
    "norm_eps": 1e-2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
SPLIT = {"full_attention": {"rope_type": "default", "rope_theta": 300.0}}
SPLIT |= {"sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}

Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "bert": ("BertForMaskedLM", BERT),
    "bert-relu-types": ("BertForMaskedLM", {**BERT, "hidden_act": "relu", "type_vocab_size": 5}),
    "bert-sequences": ("BertForSequenceClassification", {**BERT, "num_labels": 3}),
    "bert-sequences-2": ("BertForSequenceClassification", BERT),
    "bert-tokens": ("BertForTokenClassification", {**BERT, "num_labels": 7}),
    "roberta": ("RobertaForMaskedLM", ROBERTA),
    "roberta-gelu_new": ("RobertaForMaskedLM", {**ROBERTA, "hidden_act": "gelu_new"}),
    "roberta-sequences": ("RobertaForSequenceClassification", {**ROBERTA, "num_labels": 1}),
    "roberta-tokens": ("RobertaForTokenClassification", ROBERTA),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ROBERTA),
    "camembert": ("CamembertForSequenceClassification", ROBERTA),
    "distilbert": ("DistilBertForMaskedLM", DISTILBERT),
    "distilbert-untied": ("DistilBertForMaskedLM", {**DISTILBERT, "activation": "relu", "tie_word_embeddings": False}),
    "distilbert-alone": ("DistilBertModel", {**DISTILBERT, "sinusoidal_pos_embds": True}),
    "distilbert-sequences": ("DistilBertForSequenceClassification", {**DISTILBERT, "num_labels": 3}),
    "distilbert-tokens": ("DistilBertForTokenClassification", DISTILBERT),
    "electra-generator": ("ElectraForMaskedLM", {**NARROW, "hidden_act": "relu"}),
    "electra-untied": ("ElectraForMaskedLM", {**NARROW, "tie_word_embeddings": False}),
    "electra-alone": ("ElectraModel", {**BERT, "embedding_size": 32}),
    "electra-sequences": ("ElectraForSequenceClassification", {**NARROW, "num_labels": 4}),
    "electra-tokens": ("ElectraForTokenClassification", NARROW),
    "albert": ("AlbertForMaskedLM", NARROW),
    "albert-same-width": ("AlbertForMaskedLM", {**BERT, "embedding_size": 32, "num_hidden_layers": 1}),
    "albert-sequences": ("AlbertForSequenceClassification", {**NARROW, "num_labels": 3}),
    "albert-tokens": ("AlbertForTokenClassification", NARROW),
    "modernbert": ("ModernBertForMaskedLM", MODERN),
    "modernbert-biases": ("ModernBertForMaskedLM", {**MODERN, **BIASES, "rope_parameters": SPLIT}),
    "modernbert-untied": (
        "ModernBertForMaskedLM",
        {**MODERN, "tie_word_embeddings": False, "classifier_activation": "relu", "hidden_activation": "silu"},
    ),
    "modernbert-alone": ("ModernBertModel", {**MODERN, "local_attention": 7, "num_hidden_layers": 8}),
    "modernbert-irregular": (
        "ModernBertModel",
        {
            **MODERN,
            "layer_types": [f"{kind}_attention" for kind in ("full", "full", "sliding", "full", "full", "full")],
        },
    ),
    "modernbert-one-layer": ("ModernBertModel", {**MODERN, "num_hidden_layers": 1}),
    "modernbert-sequences": ("ModernBertForSequenceClassification", {**MODERN, "num_labels": 3}),
    "modernbert-sequences-mean": (
        "ModernBertForSequenceClassification",
        {**MODERN, **BIASES, "classifier_pooling": "mean"},
    ),
    "modernbert-tokens": ("ModernBertForTokenClassification", {**MODERN, "num_labels": 5}),
}


def made(name: str) -> Any:
    model = reference(*CASES[name])
    return without_unused(model)


def without_unused(model: Any) -> Any:
    """The reference, with zeros in the rows of positions that no token has: they aren't carried."""
    if hasattr(model, "roberta"):
        with torch.no_grad():
            model.roberta.embeddings.position_embeddings.weight[:2] = 0
    return model


@pytest.mark.parametrize("name", CASES)
def test_loads_and_saves(name: str, tmp_path: Path) -> None:
    assert_same_model(made(name), tmp_path, some_tokens())


WITH_POOLER = {"bert": ("BertModel", BERT), "roberta": ("RobertaModel", ROBERTA), "albert": ("AlbertModel", NARROW)}


@pytest.mark.parametrize("name", WITH_POOLER)
def test_an_encoder_alone(name: str, tmp_path: Path) -> None:
    """Its pooler isn't part of the hidden states; transformers makes a new one on the way back."""
    model = reference(*WITH_POOLER[name])
    model.save_pretrained(tmp_path / "theirs")
    ours = hub.load(tmp_path / "theirs")
    expected = outputs(model, some_tokens())
    assert_close(ours(some_tokens()), expected, LOGITS, "hidden states")
    hub.save(ours, tmp_path / "ours")
    back, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
    assert {key.split(".")[0] for key in info.pop("missing_keys")} == {"pooler"} and not any(info.values())
    assert_close(outputs(back.eval(), some_tokens()), expected, 1e-6, "hidden states of the way back")


def test_an_encoder_alone_of_a_model_with_a_head(tmp_path: Path) -> None:
    """Its tensors' names have the prefix, its config says that it is alone."""
    model = reference("BertForTokenClassification", BERT)
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, {"architectures": ["BertModel"]}, drop=("classifier.weight", "classifier.bias"))
    with torch.no_grad():
        expected = model.bert(torch.tensor(some_tokens())).last_hidden_state.numpy()
    assert_close(hub.load(tmp_path)(some_tokens()), expected, LOGITS, "hidden states")


def test_discriminator(tmp_path: Path) -> None:
    """One number for each token: how likely it is replaced."""
    model = reference("ElectraForPreTraining", {**NARROW, "hidden_act": "gelu_new"})
    model.save_pretrained(tmp_path / "theirs")
    ours = hub.load(tmp_path / "theirs")
    assert_close(ours(some_tokens())[..., 0], outputs(model, some_tokens()), LOGITS, "logits")
    hub.save(ours, tmp_path / "ours")
    back = transformers.ElectraForPreTraining.from_pretrained(tmp_path / "ours")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


AS_ANOTHER = {
    "bert-two-heads": ("BertForPreTraining", BERT, "prediction_logits"),
    "bert-answers": ("BertForQuestionAnswering", BERT, "start_logits"),
    "roberta-answers": ("RobertaForQuestionAnswering", ROBERTA, "start_logits"),
    "distilbert-answers": ("DistilBertForQuestionAnswering", DISTILBERT, "start_logits"),
    "electra-answers": ("ElectraForQuestionAnswering", NARROW, "start_logits"),
    "albert-answers": ("AlbertForQuestionAnswering", NARROW, "start_logits"),
    "modernbert-answers": ("ModernBertForQuestionAnswering", MODERN, "start_logits"),
}


@pytest.mark.parametrize("name", AS_ANOTHER)
def test_tasks_that_are_another_ones_model(name: str, tmp_path: Path) -> None:
    """Spans of answers are two classes a token; of BERT's two pretraining heads the one for tokens is kept."""
    architecture, config, output = AS_ANOTHER[name]
    model = reference(architecture, config)
    model.save_pretrained(tmp_path)
    found = np.asarray(hub.load(tmp_path)(some_tokens()))
    with torch.no_grad():
        given = model(torch.tensor(some_tokens()))
    wanted = [given[output]] if output == "prediction_logits" else [given.start_logits, given.end_logits]
    for mine, theirs in zip([found] if len(wanted) == 1 else np.moveaxis(found, -1, 0), wanted, strict=True):
        assert_close(mine, theirs.numpy(), LOGITS, output)


PADDED = ("bert", "bert-sequences", "roberta", "distilbert", "electra-generator", "albert", "modernbert")


@pytest.mark.parametrize("name", [*PADDED, "modernbert-sequences-mean"])
def test_padding(name: str, tmp_path: Path) -> None:
    """What the reference's attention mask hides is segment 0 here: the same at every token."""
    model = made(name)
    model.save_pretrained(tmp_path)
    real = (np.arange(LENGTH) < np.array([[LENGTH], [23]])).astype(np.int64)
    tokens = np.where(real, some_tokens(), 1)  # RoBERTa's positions need its padding token
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(real)).logits.numpy()
    found = np.asarray(hub.load(tmp_path)(tokens, segments=real))
    whole = np.asarray(hub.load(tmp_path)(tokens))
    if expected.ndim == 3:
        found, whole, expected = found[real > 0], whole[real > 0], expected[real > 0]
    assert_close(found, expected, LOGITS, "logits")
    assert np.max(np.abs(whole - found)) > 0.01  # padding would leave a trace


@pytest.mark.parametrize("name", ["bert", "bert-relu-types", "electra-generator", "albert-sequences"])
def test_token_types(name: str, tmp_path: Path) -> None:
    model = made(name)
    model.save_pretrained(tmp_path)
    types = np.random.default_rng(1).integers(0, model.config.type_vocab_size, (2, LENGTH))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(some_tokens()), token_type_ids=torch.tensor(types)).logits.numpy()
    ours = hub.load(tmp_path)
    assert_close(ours(some_tokens(), types=types), expected, LOGITS, "logits")
    assert np.max(np.abs(ours(some_tokens()) - expected)) > 0.01


# ---- older checkpoints ----


def rewrite(
    folder: Path, config: Any = None, *, drop: Any = (), add: Any = None, rename: tuple[tuple[str, str], ...] = ()
) -> None:
    """Changes a checkpoint's files."""
    written = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(written))
    tensors = {name: t for name, t in load_file(folder / "model.safetensors").items() if name not in drop}
    for old, new in rename:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors | (add or {}), folder / "model.safetensors")


def test_names_of_older_checkpoints(tmp_path: Path) -> None:
    """As google-bert/bert-base-uncased: gamma and beta, a buffer, a pooler and a second head, and tied copies."""
    model = made("bert")
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    add = {
        "bert.embeddings.position_ids": np.arange(LENGTH)[None],
        "bert.pooler.dense.weight": np.ones((32, 32), np.float32),
        "bert.pooler.dense.bias": np.ones(32, np.float32),
        "cls.seq_relationship.weight": np.ones((2, 32), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
        "cls.predictions.decoder.weight": held["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": held["cls.predictions.bias"],
    }
    names = ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
    rewrite(tmp_path, add=add, rename=names)
    assert_close(hub.load(tmp_path)(some_tokens()), outputs(model, some_tokens()), LOGITS, "logits")
    rewrite(tmp_path, add={"cls.predictions.decoder.bias": held["cls.predictions.bias"] + 1})
    with pytest.raises(HubError, match=r"decoder.bias and cls.predictions.bias are one tensor"):
        hub.load(tmp_path)
    rewrite(tmp_path, add={"bert.embeddings.LayerNorm.weight": np.ones(32, np.float32)})
    with pytest.raises(HubError, match="has both bert"):
        hub.load(tmp_path)

"""A `config.json`, read field by field; what nobody read and would change the result is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm.hub.errors import HubError

REQUIRED: Any = object()

# what a model computes for given tokens doesn't depend on these
HARMLESS = frozenset({
    "_attn_implementation", "_name_or_path", "_num_labels", "architectures", "attn_implementation", "auto_map",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cache_implementation", "chunk_size_feed_forward",
    "cls_token_id", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_cutoff_factor",
    "initializer_factor", "initializer_range", "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id",
    "length_penalty", "mask_token_id", "max_length", "max_new_tokens", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_past", "output_router_logits", "output_scores", "pad_token_id", "prefix",
    "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "router_aux_loss_coef", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tf_legacy_loss", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config",
    "transformers_version", "typical_p", "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16",
    "use_cache",
})  # fmt: skip
HARMLESS_PARTS = ("dropout", "_pdrop", "summary_")  # of the names of fields


class Fields:
    """`fields(name, default)` reads one. A default is what transformers takes where the file leaves the field out."""

    def __init__(self, config: Mapping[str, Any], where: str = "config.json"):
        self.config, self.where = dict(config), where
        self._read: set[str] = set()

    def __call__(self, name: str, default: Any = REQUIRED) -> Any:
        """The field's value; null counts as left out where there is a default."""
        self._read.add(name)
        value = self.config.get(name)
        if value is not None:
            return value
        if default is REQUIRED:
            raise HubError(f"{self.where} has no field '{name}', which a model of type {self.type} needs")
        return default

    def nullable(self, name: str, default: Any) -> Any:
        """The field's value, where null is a value too."""
        self._read.add(name)
        return self.config.get(name, default)

    @property
    def type(self) -> str:
        return self.config.get("model_type", "?")

    @property
    def architecture(self) -> str:
        """The class that the checkpoint was written from, such as BertForMaskedLM; '' where the file doesn't say."""
        return next(iter(self.config.get("architectures") or ()), "")

    def only(self, name: str, *allowed: Any) -> Any:
        """A field of which some values aren't supported; the first allowed one is its default."""
        value = self(name, allowed[0])
        if value not in allowed:
            raise HubError(f"{self.where}: {name}={value!r} isn't supported for {self.type}, only {_or(allowed)}")
        return value

    def skip(self, *names: str) -> None:
        """Fields that say again what others say, or that only training reads."""
        self._read.update(names)

    def finish(self) -> None:
        """Raises HubError for a field that has a value and that nobody has read."""
        for name, value in self.config.items():
            harmless = name in HARMLESS or any(part in name for part in HARMLESS_PARTS)
            if name not in self._read and not harmless and value is not None:
                raise HubError(
                    f"{self.where}: {name}={value!r} isn't known for {self.type}; it may change the result, so the "
                    "model isn't loaded"
                )


def _or(values: tuple[Any, ...]) -> str:
    return " or ".join(repr(value) for value in values)

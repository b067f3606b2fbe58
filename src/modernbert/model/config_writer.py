"""Writing a config.json that every reader of ModernBERT understands.

It holds the keys of both versions of transformers, and those that other readers want beside them;
`config_file` says which these are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modernbert.model.config import EncoderConfig, LayerKind, layer_kinds
from modernbert.model.config_file import (
    ACTIVATION_NAMES,
    BIASES,
    HEAD_ACTIVATION_NAMES,
    LAYER_KINDS,
    PROBLEMS,
    PUBLISHED_IDS,
)
from modernbert.model.rope_scaling import written_scaling

# Keys that say nothing about the model as this package runs it; readers ask for them.
_UNREAD = {
    "attention_dropout": 0.0,  # in transformers it drops probabilities too, which nobody trained
    "classifier_dropout": 0.0,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "gradient_checkpointing": False,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "mlp_dropout": 0.0,
    "position_embedding_type": "absolute",
    "reference_compile": False,  # version 4 would want a compiler
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
}


COMPUTED_IN = "float32"
"""The `dtype` of every config.json, whatever the weights are stored in.

transformers computes everything in this dtype, norms and the residual stream too. With bfloat16
there its vectors differ from ours by about 0.01; with float32 they are equal.
"""


def published_config(
    config: EncoderConfig,
    *,
    architecture: str,
    classifier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of a config.json.

    Args:
        config: The config of the model.
        architecture: The class of transformers that loads the model.
        classifier: The fields of a ClassifierSettings, for a model that has one.
    """
    published = {
        "decoder_bias": True,
        **{key: getattr(config, own) for own, key in BIASES.items()},
        **_UNREAD,
        **{key: getattr(config, key) for key in PUBLISHED_IDS},
        **_layer_keys(config.layer_kinds),
        **_rope_keys(config),
        "architectures": [architecture],
        "bos_token_id": config.cls_token_id,
        "classifier_activation": HEAD_ACTIVATION_NAMES[config.head_activation][0],
        "classifier_pooling": "mean",
        "dtype": COMPUTED_IN,
        "eos_token_id": config.sep_token_id,
        "hidden_activation": ACTIVATION_NAMES[config.activation][0],
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.norm_eps,
        "local_attention": 2 * config.window,
        "max_position_embeddings": config.max_seqlen,
        "model_type": "modernbert",
        "norm_eps": config.norm_eps,
        "num_attention_heads": config.num_heads,
        "tie_word_embeddings": config.tied_decoder,
        "torch_dtype": COMPUTED_IN,
        "vocab_size": config.vocab_size,
        **({} if classifier is None else _classifier_keys(classifier)),
    }
    return dict(sorted(published.items()))


def global_every(kinds: tuple[LayerKind, ...]) -> int | None:
    """Return the n of a pattern with global layers at 0, n, 2n, ...; None for any other pattern.

    >>> global_every(("global", "local", "global", "local")), global_every(("local", "global"))
    (2, None)
    """
    # Where no second global layer tells, any n past the end would do: ModernBERT's 3 if it can.
    later = [i for i, kind in enumerate(kinds) if i and kind == "global"]
    every = later[0] if later else max(3, len(kinds))
    return every if kinds == layer_kinds(len(kinds), global_every=every) else None


def _layer_keys(kinds: tuple[LayerKind, ...]) -> dict[str, Any]:
    types = {kind: layer_type for layer_type, kind in LAYER_KINDS.items()}
    keys = {"layer_types": [types[kind] for kind in kinds], "num_hidden_layers": len(kinds)}
    every = global_every(kinds)
    return keys if every is None else {**keys, "global_attn_every_n_layers": every}


def _rope_keys(config: EncoderConfig) -> dict[str, Any]:
    return {
        "global_rope_theta": config.global_theta,
        "local_rope_theta": config.local_theta,
        "rope_parameters": {
            layer_type: {"rope_theta": config.theta(kind), **written_scaling(config.scaling(kind))}
            for layer_type, kind in LAYER_KINDS.items()
        },
    }


def calibration_keys(temperature: float, thresholds: Sequence[float] | None) -> dict[str, Any]:
    """Return what config.json says of probabilities; nothing if outputs are taken as they are."""
    if temperature == 1.0 and thresholds is None:
        return {}
    values: dict[str, Any] = {"temperature": temperature}
    if thresholds is not None:
        values["thresholds"] = list(thresholds)
    return {"calibration": values}


def _classifier_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    labels, splitting = fields["labels"], fields["splitting"]
    return {
        **calibration_keys(fields.get("temperature", 1.0), fields.get("thresholds")),
        **({} if splitting is None else {"word_splitting": splitting.published()}),
        "classifier_pooling": fields["pooling"],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": next(key for key, own in PROBLEMS.items() if own == fields["problem"]),
    }

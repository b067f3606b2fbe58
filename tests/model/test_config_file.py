"""Reading config.json in both styles of transformers, and refusing what contradicts itself."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.config_file import classifier_fields, encoder_numbers
from modernbert.model.heads import ClassifierSettings
from modernbert.model.rope_scaling import RopeScaling

# The published base's, shortened to what matters: the style of transformers 4.
VERSION_4: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "classifier_activation": "gelu",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "model_type": "modernbert",
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "vocab_size": 50368,
}

# The same model as transformers 5 writes it.
VERSION_5: dict[str, Any] = {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "num_hidden_layers": 22,
    "layer_types": [
        "full_attention" if kind == "global" else "sliding_attention" for kind in layer_kinds(22)
    ],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}


def write(folder: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("published", [VERSION_4, VERSION_5, {"model_type": "modernbert"}])
def test_base_in_every_style(published: dict[str, Any], tmp_path: Path) -> None:
    """A file that says nothing means base: these are the defaults of transformers too."""
    folder = write(tmp_path, published)
    assert EncoderConfig.from_pretrained(folder) == EncoderConfig.preset("base")
    assert EncoderConfig.from_pretrained(str(folder)) == EncoderConfig.preset("base")


def test_both_styles_at_once_may_agree(tmp_path: Path) -> None:
    folder = write(tmp_path, {**VERSION_4, **VERSION_5})
    assert EncoderConfig.from_pretrained(folder) == EncoderConfig.preset("base")


def test_every_number_is_read() -> None:
    published = {
        "vocab_size": 1000,
        "hidden_size": 96,
        "intermediate_size": 100,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 5000,
        "local_rope_theta": 300,
        "local_attention": 20,
        "norm_eps": 1e-6,
        "max_position_embeddings": 77,
        "unk_token_id": 9,
        "cls_token_id": 8,
        "sep_token_id": 7,
        "pad_token_id": 6,
        "mask_token_id": 5,
    }
    assert EncoderConfig(**encoder_numbers(published)) == EncoderConfig(
        vocab_size=1000,
        hidden_size=96,
        intermediate_size=100,
        num_heads=3,
        layer_kinds=("global", "local", "global", "local"),
        window=10,
        global_theta=5000.0,
        local_theta=300.0,
        norm_eps=1e-6,
        max_seqlen=77,
        unk_token_id=9,
        cls_token_id=8,
        sep_token_id=7,
        pad_token_id=6,
        mask_token_id=5,
    )


def test_layer_types_are_taken_as_they_are() -> None:
    types = ["sliding_attention", "full_attention", "full_attention"]
    numbers = encoder_numbers({"num_hidden_layers": 3, "layer_types": types})
    assert numbers["layer_kinds"] == ("local", "global", "global")


def test_no_local_theta_means_the_global_one() -> None:
    """In version 4; beside version 5's entry it says nothing."""
    numbers = encoder_numbers({"global_rope_theta": 9000.0, "local_rope_theta": None})
    assert numbers["local_theta"] == 9000.0
    numbers = encoder_numbers({**VERSION_5, "local_rope_theta": None})
    assert numbers["local_theta"] == 10_000.0


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_one_kind_of_rope_parameters_may_be_absent(kind: str) -> None:
    numbers = encoder_numbers({"rope_parameters": {kind: {"rope_theta": 500}}})
    expected = {"full_attention": (500, 10_000), "sliding_attention": (160_000, 500)}
    assert (numbers["global_theta"], numbers["local_theta"]) == expected[kind]


def test_ids_that_transformers_leaves_outside_a_small_vocabulary() -> None:
    """It writes 50281 and so on whatever the vocabulary; the first ids stand in."""
    numbers = encoder_numbers({"vocab_size": 99, "pad_token_id": 50, "cls_token_id": 50281})
    config = EncoderConfig(**numbers)
    assert (config.cls_token_id, config.pad_token_id, config.mask_token_id) == (1, 50, 4)
    with pytest.raises(ConfigError, match="cls_token_id"):
        EncoderConfig(**encoder_numbers({"vocab_size": 99, "cls_token_id": 99}))


def test_dropout_is_passed_over() -> None:
    """It is a setting of the training."""
    numbers = encoder_numbers({"attention_dropout": 0.1, "embedding_dropout": 0.1})
    assert EncoderConfig(**numbers) == EncoderConfig.preset("base")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type: got 'bert', expected 'modernbert'"),
        ({"hidden_size": 10**9}, "hidden_size: got 1000000000"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: got 1000000000"),
        ({"num_hidden_layers": 5000}, "got 5000 layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: got 0"),
        ({"num_attention_heads": 7}, "not a multiple of num_heads 7"),
        ({"hidden_size": "768"}, "hidden_size: got '768', expected a whole number"),
        ({"hidden_size": 768.5}, "hidden_size: got 768.5, expected a whole number"),
        ({"vocab_size": True}, "vocab_size: got True, expected a whole number"),
        ({"norm_eps": "small"}, "norm_eps: got 'small', expected a number"),
        ({"global_rope_theta": 10**400}, "global_rope_theta: got 1000"),
        ({"local_attention": 1}, "window: got 0"),
        ({"hidden_activation": "mish"}, "hidden_activation: 'mish' is not supported; gelu, "),
        ({"hidden_activation": ["gelu"]}, "hidden_activation: .* is not supported"),
        ({"classifier_activation": "mish"}, "classifier_activation: 'mish' is not supported"),
        ({"attention_bias": "yes"}, "attention_bias: got 'yes', expected true or false"),
        ({"norm_bias": 1}, "norm_bias: got 1, expected true or false"),
        ({"rope_scaling": 2.0}, "rope_scaling: expected an object"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.rope_type: got 'dyn"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 2}}, "rope_scaling.mscale: 2 is"),
        ({"rope_scaling": {"type": "linear", "factor": -1.0}}, "rope scaling: factor: got -1.0"),
        ({"hidden_activation": "tanh"}, "hidden_activation: 'tanh' is not supported; gelu, "),
        ({"quantization_config": {"quant_method": "torchao"}}, "quantization_config: quantized"),
        ({"is_causal": True}, "is_causal: a causal model"),
        ({"model_type": "modernbert-decoder"}, "is a causal ModernBERT decoder"),
        ({"model_type": "bert"}, "model_type: got 'bert', expected 'modernbert'"),
        ({"head_dim": 32}, "head_dim 32 x 12 heads is not 768 wide"),
        ({"layer_norm_eps": 1e-12}, "norm_eps is 1e-05, but layer_norm_eps is 1e-12"),
        ({"sliding_window": 100}, "local_attention / 2 is 64, but sliding_window is 100"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers: got 0"),
        ({"layer_types": ["full_attention"]}, "layers in layer_types is 1, but num_hidden_layers"),
        ({"layer_types": ["full"] * 22}, "layer_types: expected a list of 'full_attention' and"),
        ({"layer_types": [["full_attention"]] * 22}, "layer_types: expected a list"),
        ({"layer_types": "full_attention"}, "layer_types: expected a list"),
        ({"layer_types": ["full_attention"] * 22}, "contradicts global_attn_every_n_layers 3"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters: expected 'full_attention'"),
        ({"rope_parameters": [1]}, "rope_parameters: expected 'full_attention'"),
        ({"rope_parameters": {"full_attention": 7}}, r"rope_parameters.full_attention: expected"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "llama3", "factor": 4.0}}},
            r"rope_parameters.full_attention.rope_type: got 'llama3', expected default, linear",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default", "factor": 4.0}}},
            r"rope_parameters.full_attention.factor: 4.0 is not supported",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 10000.0}}},
            r"full_attention.rope_theta is 10000.0, but global_rope_theta is 160000.0",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"rope_theta": 160000.0}}},
            r"sliding_attention.rope_theta is 160000.0, but local_rope_theta is 10000.0",
        ),
    ],
)
def test_refuses(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EncoderConfig.from_pretrained(write(tmp_path, {**VERSION_4, **changes}))
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a readable JSON file"),
        ("{", "not a readable JSON file"),
        ("[1]", "expected a JSON object"),
        ("[" * 100_000, "not a readable JSON file"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "not a readable JSON file"),
    ],
)
def test_refuses_a_file_that_is_no_config(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=message):
        EncoderConfig.from_pretrained(write(tmp_path, content))


def test_refuses_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ModelFolderError, match="not a readable JSON file"):
        EncoderConfig.from_pretrained(tmp_path)


def test_refuses_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"holds no config.json"):
        EncoderConfig.from_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match=r"no such folder$"):
        EncoderConfig.from_pretrained(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(ModelFolderError, match=r"is a file; expected a folder with a config.json"):
        EncoderConfig.from_pretrained(tmp_path / "file")


def test_yarn_of_transformers_4_counts_for_all_layers() -> None:
    """As mmBERT was stretched to 32k: one `rope_scaling`, and an attention factor that follows."""
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    numbers = encoder_numbers({**VERSION_4, "rope_scaling": scaling})
    expected = RopeScaling(
        kind="yarn",
        factor=4.0,
        original_max_seqlen=8192,
        attention_factor=0.1 * math.log(4) + 1,
    )
    assert numbers["global_scaling"] == numbers["local_scaling"] == expected


@pytest.mark.parametrize(
    ("published", "labels", "problem"),
    [
        ({}, ("LABEL_0", "LABEL_1"), "single_label"),
        ({"num_labels": 1}, ("LABEL_0",), "regression"),
        ({"id2label": {"1": "b", "0": "a"}, "label2id": {"b": 1, "a": 0}}, ("a", "b"), None),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0}}, ("a", "b"), None),
        ({"id2label": {"0": 1, "1": 5}}, ("1", "5"), None),
        ({"id2label": {"0": "a"}, "num_labels": 1, "problem_type": None}, ("a",), "regression"),
        ({"problem_type": "multi_label_classification"}, ("LABEL_0", "LABEL_1"), "multi_label"),
        ({"problem_type": "regression"}, ("LABEL_0", "LABEL_1"), "regression"),
    ],
)
def test_labels(published: dict[str, Any], labels: tuple[str, ...], problem: str | None) -> None:
    fields = classifier_fields(published)
    problem = problem or "single_label"
    expected = {"labels": labels, "pooling": "cls", "problem": problem, "splitting": None}
    assert fields == expected


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "labels in id2label is 2, but num_"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: expected the keys 0 to 1"),
        ({"id2label": {"0": 5.5}}, "id2label: expected an object of names"),
        ({"id2label": ["a", "b"]}, "id2label: expected an object of names"),
        ({"num_labels": 10**9}, "num_labels: got 1000000000"),
        ({"num_labels": 0}, "num_labels: got 0"),
        ({"classifier_pooling": "max"}, "classifier_pooling: got 'max'"),
        ({"problem_type": "guessing"}, "problem_type: got 'guessing'"),
    ],
)
def test_refuses_labels(published: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier_fields(published)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values),
    max_leaves=4,
)
other_keys = (
    *("id2label", "label2id", "num_labels", "problem_type", "classifier_pooling"),
    *("head_dim", "sliding_window", "tie_word_embeddings", "mask_token_id", "rope_scaling"),
    *("mlp_bias", "norm_bias", "classifier_bias", "is_causal"),
)
known_keys = st.sampled_from([*VERSION_4, *VERSION_5, *other_keys])


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(known_keys, json_values, min_size=1, max_size=3))
def test_any_content_is_read_or_refused_clearly(changes: dict[str, Any]) -> None:
    with suppress(ConfigError):
        EncoderConfig(**encoder_numbers({**VERSION_4, **changes}))
    with suppress(ConfigError):
        ClassifierSettings(**classifier_fields({**VERSION_4, **changes}))


def test_only_the_config_is_fetched_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def snapshot_download(hub_id: str, *, revision: None, allow_patterns: list[str]) -> str:
        assert revision is None
        calls.append((hub_id, allow_patterns))
        return str(write(tmp_path, VERSION_4))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert EncoderConfig.from_pretrained("owner/model") == EncoderConfig.preset("base")
    assert calls == [("owner/model", ["config.json"])]

"""Model folders: ours and transformers', there and back, and each kind of bad folder."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.examples import ragged, small_config, with_random_weights
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, ModelFolderError
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.model.native.engine import supports
from modernbert.model.pretrained import SavedModel

SETTINGS = ClassifierSettings(labels=("bad", "good", "so-so"), pooling="mean")
WIDE = small_config(hidden_size=128, intermediate_size=64)

MAKERS: dict[str, Callable[[EncoderConfig], SavedModel]] = {
    "ModernBertModel": Encoder,
    "ModernBertForMaskedLM": MaskedLanguageModel,
    "ModernBertForSequenceClassification": lambda c: SequenceClassifier(c, SETTINGS),
    "ModernBertForTokenClassification": lambda c: TokenClassifier(c, SETTINGS),
}
AUTO = {
    "ModernBertModel": "AutoModel",
    "ModernBertForMaskedLM": "AutoModelForMaskedLM",
    "ModernBertForSequenceClassification": "AutoModelForSequenceClassification",
    "ModernBertForTokenClassification": "AutoModelForTokenClassification",
}

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(params=MAKERS)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A masked language model of ours."""
    with_random_weights(MaskedLanguageModel(small_config())).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, edit: Edit) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    edit(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def edit_weights(folder: Path, edit: Edit) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file({name: x.contiguous().clone() for name, x in tensors.items()}, path)


def same(first: SavedModel, second: SavedModel) -> bool:
    one, two = dict(first.named_parameters()), dict(second.named_parameters())
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@torch.no_grad()
def check_same_answers(ours: SavedModel, theirs: Any) -> None:
    """On a ragged batch, whatever the model's output is."""
    token_ids, present = ragged([5, 40, 1, 12])
    output = theirs.eval()(input_ids=token_ids, attention_mask=present.long())
    expected: Tensor = output[0]
    if not isinstance(ours, SequenceClassifier):
        expected = expected[present]
    got = ours(PackedBatch.from_padded(token_ids, present))
    num_terms = terms_of_encoder(ours.config, 40)
    assert_equal_but_for_rounding(got, expected, num_terms=num_terms)


# Ours, there and back


def test_there_and_back(architecture: str, tmp_path: Path) -> None:
    model = with_random_weights(MAKERS[architecture](small_config()))
    model.save_pretrained(tmp_path / "new" / "model")
    loaded = type(model).from_pretrained(tmp_path / "new" / "model")
    assert same(model, loaded)
    assert loaded.config == model.config
    assert loaded.classifier_fields() == model.classifier_fields()
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())
    files = sorted(path.name for path in (tmp_path / "new" / "model").iterdir())
    assert files == ["config.json", "hashes.json", "model.safetensors"]


def test_layers_in_any_order_there_and_back(tmp_path: Path) -> None:
    config = small_config(layer_kinds=("local", "global", "global", "local", "global"))
    model = with_random_weights(Encoder(config))
    model.save_pretrained(tmp_path)
    assert "global_attn_every_n_layers" not in json.loads((tmp_path / "config.json").read_text())
    assert Encoder.from_pretrained(str(tmp_path)).config == config


def test_an_encoder_comes_from_any_folder(architecture: str, tmp_path: Path) -> None:
    model = with_random_weights(MAKERS[architecture](small_config()))
    model.save_pretrained(tmp_path)
    encoder = model if isinstance(model, Encoder) else model.encoder
    assert isinstance(encoder, Encoder)
    assert same(Encoder.from_pretrained(tmp_path), encoder)


def test_bfloat16_weights_are_saved_as_such_and_read_in_float32(tmp_path: Path) -> None:
    model = with_random_weights(Encoder(small_config())).bfloat16()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert same(Encoder.from_pretrained(tmp_path), model.float())


def test_other_files_of_a_folder_stay(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    model = with_random_weights(MaskedLanguageModel(small_config()), seed=1)
    model.save_pretrained(folder)
    assert same(MaskedLanguageModel.from_pretrained(folder), model)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "hashes.json", "model.safetensors", "tokenizer.json"]


def test_a_model_saved_over_the_one_it_came_from(folder: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(folder)
    before = [parameter.clone() for parameter in model.parameters()]
    model.save_pretrained(folder)
    assert all(map(torch.equal, model.parameters(), before))
    assert same(MaskedLanguageModel.from_pretrained(folder), model)


# transformers


def theirs_of(transformers: ModuleType, architecture: str, **changes: Any) -> Any:
    config = transformers.ModernBertConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        local_attention=8,
        pad_token_id=3,
        num_labels=3,
        **changes,
    )
    return with_random_weights(getattr(transformers, architecture)(config))


def test_loads_what_transformers_saves(
    architecture: str, transformers: ModuleType, tmp_path: Path
) -> None:
    theirs = theirs_of(transformers, architecture, classifier_pooling="mean")
    theirs.save_pretrained(tmp_path)
    ours = type(MAKERS[architecture](small_config())).from_pretrained(tmp_path)
    check_same_answers(ours, theirs)


def test_transformers_loads_what_we_save(
    architecture: str, transformers: ModuleType, tmp_path: Path
) -> None:
    ours = with_random_weights(MAKERS[architecture](small_config()))
    ours.save_pretrained(tmp_path)
    auto = getattr(transformers, AUTO[architecture])
    theirs, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert type(theirs).__name__ == architecture
    check_same_answers(ours, theirs)
    if isinstance(ours, SequenceClassifier):
        assert theirs.config.id2label == {0: "bad", 1: "good", 2: "so-so"}
        assert theirs.config.classifier_pooling == "mean"


def test_through_transformers_and_back(transformers: ModuleType, tmp_path: Path) -> None:
    ours = with_random_weights(MaskedLanguageModel(small_config(global_theta=5_000.0)))
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    back = MaskedLanguageModel.from_pretrained(tmp_path / "theirs")
    assert same(back, ours)
    assert back.config == ours.config


def test_layers_in_any_order_in_transformers(transformers: ModuleType, tmp_path: Path) -> None:
    ours = with_random_weights(Encoder(small_config(layer_kinds=("local", "global", "global"))))
    ours.save_pretrained(tmp_path)
    check_same_answers(ours, transformers.AutoModel.from_pretrained(tmp_path))


def test_a_version_4_folder(transformers: ModuleType, tmp_path: Path) -> None:
    """The keys of version 4 alone, with values that are no defaults."""
    theirs = theirs_of(
        transformers,
        "ModernBertForMaskedLM",
        layer_types=["full_attention", "sliding_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 700.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        },
    )
    theirs.save_pretrained(tmp_path)

    def to_version_4(config: dict[str, Any]) -> None:
        del config["layer_types"], config["rope_parameters"], config["dtype"]
        config.update(global_attn_every_n_layers=2, torch_dtype="float32")
        config.update(global_rope_theta=700.0, local_rope_theta=30.0)

    edit_config(tmp_path, to_version_4)
    ours = MaskedLanguageModel.from_pretrained(tmp_path)
    check_same_answers(ours, theirs)


def test_a_sharded_folder(transformers: ModuleType, tmp_path: Path) -> None:
    theirs = theirs_of(transformers, "ModernBertForMaskedLM")
    theirs.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    check_same_answers(MaskedLanguageModel.from_pretrained(tmp_path), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_of_transformers(
    dtype: torch.dtype, transformers: ModuleType, tmp_path: Path
) -> None:
    theirs = theirs_of(transformers, "ModernBertForMaskedLM").to(dtype)
    theirs.save_pretrained(tmp_path)
    theirs = type(theirs).from_pretrained(tmp_path, dtype=torch.float32)
    check_same_answers(MaskedLanguageModel.from_pretrained(tmp_path), theirs)


# Folders that cannot be used


def test_a_decoder_that_is_the_embedding_again(folder: Path) -> None:
    expected = MaskedLanguageModel.from_pretrained(folder)
    embedding = "model.embeddings.tok_embeddings.weight"
    edit_weights(folder, lambda x: x.update({"decoder.weight": x[embedding]}))
    assert same(MaskedLanguageModel.from_pretrained(folder), expected)
    edit_weights(folder, lambda x: x.update({"decoder.weight": x[embedding] + 1}))
    with pytest.raises(ModelFolderError, match=r"decoder.weight differs from model.embeddings"):
        MaskedLanguageModel.from_pretrained(folder)
    assert same(Encoder.from_pretrained(folder), expected.encoder)
    edit_weights(folder, lambda x: x.update({"decoder.weight": x[embedding][1:]}))
    with pytest.raises(ModelFolderError, match=r"decoder.weight: got \(127, 32\)"):
        MaskedLanguageModel.from_pretrained(folder)


def test_missing_tensors(folder: Path) -> None:
    edit_weights(folder, lambda x: x.pop("model.layers.2.mlp.Wi.weight"))
    with pytest.raises(ModelFolderError, match=r"lacks model.layers.2.mlp.Wi.weight$"):
        MaskedLanguageModel.from_pretrained(folder)
    edit_weights(folder, dict.clear)
    with pytest.raises(
        ModelFolderError, match=r"lacks decoder.bias, model\S+, model\S+ and \d+ more$"
    ):
        MaskedLanguageModel.from_pretrained(folder)


def test_tensors_that_transformers_passes_over_too(folder: Path) -> None:
    """Tables that follow from the config, and what a training kept beside the model."""
    before = Encoder.from_pretrained(folder)
    extra = {
        "model.layers.0.attn.rotary_emb.inv_freq": torch.ones(4),
        "loss_function.scale": torch.ones(1),
    }
    edit_weights(folder, lambda x: x.update(extra))
    for cls in (MaskedLanguageModel, Encoder):
        cls.from_pretrained(folder)
    after = Encoder.from_pretrained(folder)
    assert all(map(torch.equal, before.parameters(), after.parameters()))


def test_extra_tensors(folder: Path) -> None:
    edit_weights(folder, lambda x: x.update({"model.layers.0.attn_norm.weight": torch.ones(32)}))
    for cls in (MaskedLanguageModel, Encoder):
        message = (
            rf"has tensors that {cls.__name__} does not have: model.layers.0.attn_norm.weight$"
        )
        with pytest.raises(ModelFolderError, match=message):
            cls.from_pretrained(folder)


def test_mis_shaped_tensors(folder: Path) -> None:
    edit_config(folder, lambda config: config.update(intermediate_size=40))
    message = r"model.layers.0.mlp.Wi.weight: got \(96, 32\), expected \(80, 32\) by config.json$"
    with pytest.raises(ModelFolderError, match=message):
        MaskedLanguageModel.from_pretrained(folder)


def test_a_deeper_config_than_its_weights(folder: Path) -> None:
    def deepen(config: dict[str, Any]) -> None:
        config["layer_types"].append("sliding_attention")
        config["num_hidden_layers"] = 5

    edit_config(folder, deepen)
    with pytest.raises(ModelFolderError, match=r"lacks model.layers.4.attn_norm.weight, .* more$"):
        MaskedLanguageModel.from_pretrained(folder)


def test_one_tensor_under_two_names(folder: Path) -> None:
    edit_weights(folder, lambda x: x.update({"final_norm.weight": torch.ones(32)}))
    with pytest.raises(ModelFolderError, match=r"one tensor twice, as final_norm.weight and model"):
        MaskedLanguageModel.from_pretrained(folder)


def test_a_head_from_a_folder_without_it(folder: Path, tmp_path: Path) -> None:
    Encoder.from_pretrained(folder).save_pretrained(tmp_path / "alone")
    message = r"lacks the head of a MaskedLanguageModel: decoder.bias, head.dense.weight, head"
    with pytest.raises(ModelFolderError, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path / "alone")
    message = r"lacks the head of a SequenceClassifier: classifier.weight, classifier.bias$"
    with pytest.raises(ModelFolderError, match=message):
        SequenceClassifier.from_pretrained(folder)


def test_classifiers_of_the_other_kind(tmp_path: Path) -> None:
    with_random_weights(SequenceClassifier(small_config(), SETTINGS)).save_pretrained(tmp_path)
    message = "ModernBertForSequenceClassification, expected a ModernBertForTokenClassification$"
    with pytest.raises(ModelFolderError, match=message):
        TokenClassifier.from_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match=r"lacks the head of a Masked\w+: decoder.bias$"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_labels_that_contradict_the_weights(tmp_path: Path) -> None:
    with_random_weights(SequenceClassifier(small_config(), SETTINGS)).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: [config.pop("id2label"), config.pop("label2id")])
    with pytest.raises(ModelFolderError, match=r"classifier.bias: got \(3,\), expected \(2,\) by"):
        SequenceClassifier.from_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config.update(id2label={"0": "a"}, num_labels=2))
    with pytest.raises(ConfigError, match=r"config.json: labels in id2label is 1, but num_labels"):
        SequenceClassifier.from_pretrained(tmp_path)


def test_a_decoder_without_a_bias_has_one_of_zeros(folder: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(folder)
    batch = PackedBatch.from_sequences([[5, 6, 7]])
    expected = model(batch) - model.decoder_bias
    edit_config(folder, lambda config: config.update(decoder_bias=False))
    with pytest.raises(ModelFolderError, match=r"does not have: decoder\.bias"):
        MaskedLanguageModel.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.bias"]
    save_file(tensors, folder / "model.safetensors")
    read = MaskedLanguageModel.from_pretrained(folder)
    torch.testing.assert_close(read(batch), expected)
    assert not read.decoder_bias.any() and read.decoder_bias.requires_grad


def test_absurd_sizes_allocate_nothing(folder: Path) -> None:
    """The largest that a config may name would be 70 terabytes."""
    edit_config(folder, lambda config: config.update(hidden_size=10**9))
    with pytest.raises(ConfigError, match="hidden_size: got 1000000000"):
        MaskedLanguageModel.from_pretrained(folder)
    huge = {"hidden_size": 65536, "intermediate_size": 65536, "vocab_size": 1 << 24}
    edit_config(folder, lambda config: config.update(huge))
    with pytest.raises(ModelFolderError, match="expected"):
        MaskedLanguageModel.from_pretrained(folder)


def test_pickles_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"pytorch_model.bin, which can run code"):
        MaskedLanguageModel.from_pretrained(folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no such folder"):
        MaskedLanguageModel.from_pretrained(tmp_path / "absent")
    with pytest.raises(ModelFolderError, match=r"holds no config.json"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_weights_are_fetched_from_the_hub_and_pickles_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def snapshot_download(hub_id: str, *, revision: None, allow_patterns: list[str]) -> str:
        assert revision is None
        calls.append((hub_id, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    MaskedLanguageModel.from_pretrained("owner/model")
    assert calls == [("owner/model", ["*.json", "*.safetensors"])]


# Saves that fail


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing past a limit fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_model(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = with_random_weights(MaskedLanguageModel(small_config()), seed=1)
    with largest_file(50_000), pytest.raises(ModelFolderError, match="cannot be written") as caught:
        model.save_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path) -> None:
    model = with_random_weights(MaskedLanguageModel(small_config()))
    with largest_file(50_000), pytest.raises(ModelFolderError, match="cannot be written"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x", encoding="utf-8")
    with pytest.raises(ModelFolderError, match="cannot be written"):
        with_random_weights(Encoder(small_config())).save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").read_text(encoding="utf-8") == "x"


@pytest.mark.skipif(not supports(WIDE, "float32"), reason="no C kernels on this machine")
def test_a_model_that_is_packed_for_inference(tmp_path: Path) -> None:
    model = with_random_weights(MaskedLanguageModel(WIDE))
    model.encoder.for_inference("float32")
    with pytest.raises(ModelFolderError, match="packed for inference and cannot be saved"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())

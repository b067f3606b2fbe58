"""Model folders: config.json and model.safetensors, with the names that transformers gives.

A folder is checked before anything of its size is allocated: first the config, then the headers of
its tensors against the shapes that the config asks for.

This is the one place that knows the foreign names. They are transformers'; inside the encoder both
sides agree, so the table is short:

    model.embeddings.tok_embeddings.weight, model.embeddings.norm.weight
    model.layers.{i}.attn_norm.weight (not of layer 0), .attn.Wqkv.weight, .attn.Wo.weight,
        .mlp_norm.weight, .mlp.Wi.weight, .mlp.Wo.weight
    model.final_norm.weight
    head.dense.weight, head.norm.weight, decoder.bias, classifier.weight, classifier.bias
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.json_files import flag
from modernbert.kinds import CONFIG_FILE, MODELS, ModelKind
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import encoder_numbers, find_model, naming, read_config_file
from modernbert.model.config_writer import published_config
from modernbert.model.weights import TensorHeader, read_headers, read_tensors, write_tensors
from modernbert.reading import user_path

# Beginnings of names of tensors: here, and in the folder of a model with a head.
_WITH_HEAD = (
    ("encoder.", "model."),
    ("head.", "head."),
    ("decoder_weight", "decoder.weight"),
    ("decoder_bias", "decoder.bias"),
    ("classifier.", "classifier."),
)

# The same for an encoder that is saved alone.
_ALONE = (
    ("encoder.embeddings.", "embeddings."),
    ("encoder.layers.", "layers."),
    ("encoder.final_norm.", "final_norm."),
)

EMBEDDING = "encoder.embeddings.tok_embeddings.weight"
DECODER_BIAS = "decoder_bias"
DECODER_WEIGHT = "decoder_weight"  # a parameter only where it is not the embedding

# Tensors of older files that follow from the config, and that transformers passes over too.
_DERIVED = ("inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "position_ids")
_ROOMS = ("encoder.", "head.", "decoder_", "decoder.", "classifier.")

M = TypeVar("M", bound="SavedModel")


def to_foreign(name: str, *, alone: bool = False) -> str:
    """Return the name that a folder has for one of our parameters, named as in a model with a head.

    >>> to_foreign("encoder.final_norm.weight"), to_foreign("encoder.final_norm.weight", alone=True)
    ('model.final_norm.weight', 'final_norm.weight')

    Args:
        name: The name of a parameter here.
        alone: For the folder of an encoder without a head.
    """
    for own, foreign in _ALONE if alone else _WITH_HEAD:
        if name.startswith(own):
            return foreign + name.removeprefix(own)
    return name


def from_foreign(name: str) -> str:
    """Return our name for a tensor of a folder of either kind; unknown names stay unchanged.

    What torch puts before the names of a compiled module, or of one of several GPUs, is left out.

    >>> from_foreign("layers.1.attn.Wo.weight"), from_foreign("_orig_mod.decoder.bias")
    ('encoder.layers.1.attn.Wo.weight', 'decoder_bias')
    """
    name = name.removeprefix("module.").replace("_orig_mod.", "")
    for own, foreign in (*_WITH_HEAD, *_ALONE):
        if name.startswith(foreign):
            return own + name.removeprefix(foreign)
    return name


def is_passed_over(name: str) -> bool:
    """Return whether one of our names is of a tensor that no model needs.

    Such are tables that follow from the config, and what a training kept beside the model, such as
    the weights of its loss.

    >>> is_passed_over("encoder.layers.0.attn.rotary_emb.inv_freq"), is_passed_over("loss.scale")
    (True, True)
    >>> is_passed_over("encoder.layers.0.attn.Wqkv.bias")
    False
    """
    return name.endswith(_DERIVED) or not name.startswith(_ROOMS)


def belongs_to_a_head(name: str) -> bool:
    """Return whether one of our names is a head's, which an encoder alone can do without."""
    return name.startswith(("head.", "classifier.", "decoder_"))


class SavedModel(nn.Module):
    """Reading and writing of model folders, alike for the encoder and for every head.

    The parameters of an encoder within are named `encoder.*`; a model without such is the encoder.
    """

    config: EncoderConfig
    kind: ClassVar[ModelKind]
    """What a folder with such a model holds."""
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    """What the columns of its outputs are called in exported files; one name for all together."""
    is_of_texts: ClassVar[bool] = False
    """Whether it gives a row for each text, and not one for each token."""

    def __repr__(self) -> str:
        config = self.config
        millions = config.num_parameters(head=self.kind == "masked_lm") / 1e6
        return (
            f"{type(self).__name__}({config.num_layers} layers, {config.hidden_size} wide, "
            f"{config.num_heads} heads, vocabulary of {config.vocab_size:,}, up to "
            f"{config.max_seqlen:,} tokens, {millions:.1f} million parameters)"
        )

    @classmethod
    def architecture(cls) -> str:
        """Return what config.json calls a model of this kind."""
        named = MODELS[cls.kind].architecture
        assert named is not None
        return named

    @classmethod
    def from_pretrained(
        cls, folder_or_hub_id: Path | str, *, precision: PrecisionChoice | None = None
    ) -> Self:
        """Read a model folder, or a model on the hub.

        An encoder is read from the folder of any model that has one, a head from its own kind.

        Args:
            folder_or_hub_id: A local folder or a hub id.
            precision: None gives float32 weights to train; a precision, or "auto", makes the model
                ready `for_inference` in it.

        Raises:
            ModelFolderError: No such model, or tensors that are missing or do not fit.
            ConfigError: A config that is no ModernBERT's or contradicts itself, or a precision
                that cannot be had here.
        """
        model = load(cls, folder_or_hub_id)
        return model if precision is None else model.for_inference(precision)

    def for_inference(self, precision: PrecisionChoice = "auto") -> Self:
        """Make the encoder within ready for inference: see `Encoder.for_inference`.

        Raises:
            ConfigError: A precision that cannot be had here.
        """
        self.requires_grad_(False)
        self.eval()
        self.get_submodule("encoder").for_inference(precision)  # type: ignore[operator]
        return self

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors as transformers has them for this model.

        Raises:
            ModelFolderError: The folder cannot be written; what was there stays whole.
        """
        save(self, folder)

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Return a model of the shape that a config.json tells; its weights are to be read.

        Raises:
            ConfigError: A config that contradicts itself, or that this model does not compute.
        """
        return cls(EncoderConfig(**encoder_numbers(published)))

    def classifier_fields(self) -> Mapping[str, Any] | None:
        """Return what config.json says about labels, for a model that has some."""
        return None


def load(cls: type[M], folder_or_hub_id: Path | str) -> M:
    """Return a model read from a folder, or from the hub, in float32.

    Raises:
        ModelFolderError: No such model, or tensors that are missing or do not fit.
        ConfigError: A config that is no ModernBERT's or contradicts itself.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    published = read_config_file(folder)
    with naming(folder), torch.device("meta"):
        model = cls.from_published(published)
        absent = _absent_bias(model, published)
    headers = _headers_by_own_name(folder, model)
    _check_shapes(folder, model, headers, absent)
    _check_kind(folder, model, published)
    tensors = read_tensors(headers)
    tensors |= {name: torch.zeros(shape) for name, shape in absent.items()}
    if model.config.tied_decoder:
        _check_decoder(folder, tensors)
    prefix = _prefix(model)
    model.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, assign=True
    )
    return model


def save(model: SavedModel, folder: Path | str) -> None:
    """Write a model's config.json and model.safetensors.

    A folder that is there keeps its other files, such as a tokenizer's.

    Raises:
        ModelFolderError: The folder cannot be written; each file is whole, the old or the new.
    """
    if any(getattr(part, "is_packed", False) for part in model.modules()):
        raise ModelFolderError(
            f"{folder}: the model is packed for inference and cannot be saved; "
            "load it again without a precision"
        )
    prefix = _prefix(model)
    tensors = {
        to_foreign(prefix + name, alone=bool(prefix)): parameter
        for name, parameter in model.named_parameters()
    }
    published = published_config(
        model.config,
        architecture=model.architecture(),
        classifier=model.classifier_fields(),
    )
    with updated_folder(user_path(folder), error=ModelFolderError) as temporary:
        text = json.dumps(published, indent=2, ensure_ascii=False) + "\n"
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        write_tensors(temporary, tensors)


def _prefix(model: SavedModel) -> str:
    """What an encoder's own names lack, compared with those in a model that has a head."""
    return "" if hasattr(model, "encoder") else "encoder."


def _headers_by_own_name(folder: Path, model: SavedModel) -> dict[str, TensorHeader]:
    headers: dict[str, TensorHeader] = {}
    for header in read_headers(folder):
        name = from_foreign(header.name)
        if is_passed_over(name) or (belongs_to_a_head(name) and _prefix(model)):
            continue
        if name in headers:
            raise ModelFolderError(
                f"{folder}: contains one tensor twice, as {headers[name].name} and {header.name}"
            )
        headers[name] = header
    return headers


def _absent_bias(model: SavedModel, published: Mapping[str, Any]) -> dict[str, torch.Size]:
    """The bias of a decoder that has none, which is one of zeros here; nothing for other models."""
    if flag(published, DECODER_BIAS, default=True):
        return {}
    return {name: p.shape for name, p in model.named_parameters() if name == DECODER_BIAS}


def _check_shapes(
    folder: Path,
    model: SavedModel,
    headers: Mapping[str, TensorHeader],
    absent: Mapping[str, torch.Size],
) -> None:
    """Compare the tensors that are there with those that the model needs."""
    prefix = _prefix(model)
    expected = {
        prefix + name: tuple(p.shape) for name, p in model.named_parameters() if name not in absent
    }
    if DECODER_WEIGHT in headers and hasattr(model, "decoder_weight"):
        expected[DECODER_WEIGHT] = expected[EMBEDDING]
    missing = [to_foreign(name) for name in expected if name not in headers]
    if missing and all(belongs_to_a_head(from_foreign(name)) for name in missing):
        raise ModelFolderError(
            f"{folder}: lacks the head of a {type(model).__name__}: {_first_of(missing)}"
        )
    if missing:
        raise ModelFolderError(f"{folder}: lacks {_first_of(missing)}")
    if extra := [header.name for name, header in headers.items() if name not in expected]:
        raise ModelFolderError(
            f"{folder}: has tensors that {type(model).__name__} does not have: {_first_of(extra)}"
        )
    for name, header in headers.items():
        if header.shape != expected[name]:
            raise ModelFolderError(
                f"{folder}: {header.name}: got {header.shape}, expected {expected[name]} "
                f"by {CONFIG_FILE}"
            )


def _check_kind(folder: Path, model: SavedModel, published: Mapping[str, Any]) -> None:
    """Tell classifiers apart that have the same tensors."""
    wanted, given = model.architecture(), published.get("architectures")
    if not isinstance(given, list) or not given or model.classifier_fields() is None:
        return
    if wanted not in given:
        raise ModelFolderError(f"{folder}: holds a {given[0]}, expected a {wanted}")


def _check_decoder(folder: Path, tensors: dict[str, Tensor]) -> None:
    """A decoder's matrix may be stored, and is dropped, where it is the embedding again."""
    decoder = tensors.pop(DECODER_WEIGHT, None)
    if decoder is not None and not torch.equal(decoder, tensors[EMBEDDING]):
        raise ModelFolderError(
            f"{folder}: {to_foreign(DECODER_WEIGHT)} differs from {to_foreign(EMBEDDING)}, but "
            f"{CONFIG_FILE} does not say `tie_word_embeddings: false`"
        )


def _first_of(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"

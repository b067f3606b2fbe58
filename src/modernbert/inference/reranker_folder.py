"""How a model scores pairs of texts, as a CrossEncoder of sentence-transformers has it in a folder.

Either the classifier of a config.json, with one output, or an encoder with the steps Pooling,
Dense, LayerNorm, ... behind it, the last of which gives one number.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import ModelFolderError
from modernbert.inference.embedder_folder import read_pooled_folder
from modernbert.inference.foreign_files import RerankerFile, TransformerFile, read_prompt_file
from modernbert.inference.foreign_layers import activation_of
from modernbert.inference.prompts import Prompted
from modernbert.json_files import read_object, read_settings
from modernbert.kinds import CONFIG_FILE, SETTINGS_FILE, TRANSFORMER_FILE, read_modules
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings
from modernbert.model.multi_vector import Activation
from modernbert.model.pooling import Poolings, pool


@dataclass(frozen=True, kw_only=True)
class RerankerSettings(Prompted):
    """What makes the score of a pair.

    Attributes:
        activation: What makes a score of an output; sentence-transformers' default is Sigmoid.
        max_seqlen: The longest pair, in tokens; None for what the model reads.
    """

    activation: Activation = "Sigmoid"
    max_seqlen: int | None = None


class PooledScorer(nn.Module):
    """An encoder, pooling, and layers that end in one number.

    Args:
        encoder: The encoder.
        pooling: How the vectors of the tokens become one.
        layers: What makes a score of it.
    """

    settings = ClassifierSettings(labels=("relevance",), problem="regression")
    labels = settings.labels

    def __init__(self, encoder: Encoder, pooling: Poolings, layers: list[nn.Module]) -> None:
        super().__init__()
        self.config, self.encoder, self.pooling = encoder.config, encoder, pooling
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(num_sequences, 1) float32."""
        hidden = self.encoder(batch).float()
        scores: Tensor = self.layers(pool(hidden, batch, self.pooling))
        return scores


@dataclass(frozen=True)
class RerankerFolder:
    """What a folder says.

    Attributes:
        place: The folder of the model and its tokenizer.
        settings: How it is used.
        is_lowered: Whether texts are lowercased.
        pooling: Of a model made of steps; None for a classifier.
        layers: Of a model made of steps.
    """

    place: Path
    settings: RerankerSettings
    is_lowered: bool
    pooling: Poolings | None = None
    layers: tuple[nn.Module, ...] = ()


def read_reranker(folder: Path) -> RerankerFolder:
    """Read what a model's folder says of scoring pairs.

    Raises:
        ModelFolderError: A file that cannot be used, or steps that are not supported.
        ConfigError: Settings that contradict each other.
    """
    modules = read_modules(folder)
    said = read_prompt_file(RerankerFile, folder)
    place = folder / modules[0].path if modules else folder
    transformer = read_settings(TransformerFile, place / TRANSFORMER_FILE)
    settings = RerankerSettings(
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
        activation=_activation(folder, said.activation_fn, place),
        max_seqlen=transformer.max_seq_length,
    )
    if len(modules) < 2:
        return RerankerFolder(place, settings, transformer.do_lower_case)
    found = read_pooled_folder(folder)
    last: Any = found.layers[-1] if found.layers else None
    if getattr(getattr(last, "settings", None), "out_features", 0) != 1:
        raise ModelFolderError(f"{folder}: expected a Dense of one output as the last step")
    if not found.pooling.include_prompt and settings.prompts:
        raise ModelFolderError(f"{folder}: include_prompt: false is not supported for pairs")
    poolings = found.pooling.poolings
    return RerankerFolder(place, settings, transformer.do_lower_case, poolings, tuple(found.layers))


def _activation(folder: Path, said: str | None, place: Path) -> Activation:
    """The activation that the folder names, in the place of any version; else the default.

    Raises:
        ModelFolderError: One that is not supported.
    """
    if said is not None:
        return activation_of(said, folder / SETTINGS_FILE)
    config = read_object(place / CONFIG_FILE)
    nested = config.get("sentence_transformers")
    named = nested.get("activation_fn") if isinstance(nested, dict) else None
    named = named or config.get("sbert_ce_default_activation_function")
    return "Sigmoid" if named is None else activation_of(str(named), place / CONFIG_FILE)

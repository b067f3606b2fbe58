"""Estimators of scikit-learn: labels, numbers and vectors of texts, in pipelines and searches.

They fine-tune with `modernbert.finetune` and predict with the classes of `inference`, so a model is
the same whichever way it was made.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from modernbert.api import finetune
from modernbert.data.rows.cells import looks_like_list, shown
from modernbert.data.rows.python_objects import is_frame
from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.inference.classifier import Classifier, as_scores
from modernbert.inference.embedder import Embedder
from modernbert.inference.inputs import Text
from modernbert.model.config_file import find_model
from modernbert.reading import user_path
from modernbert.tasks.labels.rows import row_label_names

import_extra("sklearn")

from sklearn.base import (  # noqa: E402
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_consistent_length, check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets, type_of_target  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

BASE = "answerdotai/ModernBERT-base"
_NUM_SEEDS = 2**31 - 1
_MODEL_FILES = (".json", ".safetensors")


class FittedModel:
    """A model in its folder, which is pickled whole and loaded when it is first used.

    Args:
        folder: The folder of the model.
        load: Loads what uses the model, from its folder.
        temporary: A folder to remove once nobody has this object.
    """

    def __init__(
        self, folder: Path, load: Callable[[Path], Any], *, temporary: Path | None = None
    ) -> None:
        self.folder, self._load = folder, load
        self._loaded: Any = None
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @property
    def loaded(self) -> Any:
        """The object that uses the model."""
        if self._loaded is None:
            self._loaded = self._load(self.folder)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        paths = [path for path in self.folder.rglob("*") if path.suffix in _MODEL_FILES]
        files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}
        return {"files": files, "load": self._load}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="modernbert-"))
        for name, content in state["files"].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        FittedModel.__init__(self, folder, state["load"], temporary=folder)


class _TextEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators: reads texts and holds the model."""

    trained_: FittedModel

    @property
    def model_(self) -> Any:
        """The model that was fitted: a `Classifier` or an `Embedder`."""
        return self.trained_.loaded

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # of numbers
        return tags

    def _read(self, X: Any, y: Any = "no_validation") -> list[Text]:
        """Read the texts to learn from."""
        texts = self._texts(X)
        validate_data(self, X, y, skip_check_array=True)
        if not isinstance(y, str):
            check_consistent_length(texts, y)
        return texts

    def _read_again(self, X: Any) -> list[Text]:
        """Read texts for a fitted model; one column may also be given as a list."""
        check_is_fitted(self)
        texts = self._texts(X)
        if isinstance(texts[0], tuple) or getattr(self, "n_features_in_", 1) > 1:
            validate_data(self, X, skip_check_array=True, reset=False)
        return texts

    def _texts(self, X: Any) -> list[Text]:
        return read_texts(X)


def read_texts(X: Any) -> list[Text]:
    """Read texts or pairs of texts from anything that scikit-learn passes.

    Args:
        X: A list, an array or a series of texts; a list of pairs; or an array or a frame with one
            column of texts, or two.

    Raises:
        InputError: Something else, or a value that is not a text; the message names its place.
        TypeError: A sparse matrix.
    """
    if isinstance(X, str | bytes | Mapping) or not hasattr(X, "__iter__"):
        raise InputError(f"X: got {shown(X)}, expected a list of texts, or a column of a frame")
    if hasattr(X, "tocsr"):
        raise TypeError("X: got a sparse matrix, expected a list of texts, or a column of a frame")
    if is_frame(X):
        rows: list[Any] = list(zip(*(X[name] for name in X.columns), strict=True))
    else:
        rows = X.tolist() if hasattr(X, "tolist") else list(X)
    if not rows:
        raise InputError("X: has 0 texts, while a minimum of 1 is required")
    return [_text(row, place) for place, row in enumerate(rows)]


def _text(row: Any, place: int) -> Text:
    parts = tuple(row) if isinstance(row, tuple | list) else (row,)
    if not 1 <= len(parts) <= 2:
        raise InputError(
            f"X: row {place} has {len(parts)} columns, expected one of texts, or two of pairs; "
            "choose a column, as a ColumnTransformer does"
        )
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"X: row {place}: got {shown(row)}, expected a text or a pair of texts")
    texts = tuple(map(str, parts))
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


@dataclass(eq=False, repr=False)
class _FineTuned(_TextEstimator):
    """Base of the estimators that fine-tune a model."""

    verb: ClassVar[str]

    model: Path | str = BASE
    _: KW_ONLY
    epochs: int = 3
    learning_rate: float | None = None
    weight_decay: float = 1e-6
    batch_size: int = 32
    max_seqlen: int | None = None
    pooling: str = "mean"
    validation_fraction: float | None = None
    precision: str = "auto"
    random_state: Any = 0
    output: Path | str | None = None
    settings: Mapping[str, Any] | None = None
    verbose: bool = False

    def _finetune(self, texts: Sequence[Text], targets: Sequence[Any], **options: Any) -> None:
        """Learn the targets of texts, and keep the model."""
        rows = _rows(texts, targets)
        options = {**self._options(), **options, **(self.settings or {})}
        place = self._place(rows, options)
        temporary = place if self.output is None else None
        reading: Any = {"precision": self.precision, "max_seqlen": self.max_seqlen}
        load = partial(Classifier.from_pretrained, **reading)
        trained = FittedModel(place / "model", load, temporary=temporary)
        finetune(self.verb, train=rows, output=place, progress=self.verbose, **options)
        self.trained_ = trained

    def _options(self) -> dict[str, Any]:
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(_NUM_SEEDS)
        held_out = self.validation_fraction
        options = {
            "model": str(self.model),
            "text": "text",
            "label": "label",
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "max_seqlen": self.max_seqlen,
            "pooling": self.pooling,
            "seeds": [int(seed)],
            "dev": None if held_out is None else f"{100 * held_out:.10f}%",
        }
        return {name: value for name, value in options.items() if value is not None}

    def _place(self, rows: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
        """Return the folder of a fit, the same for equal fits."""
        if self.output is None:
            return Path(tempfile.mkdtemp(prefix="modernbert-"))
        name = sha256(repr((self.verb, rows, sorted(options.items()))).encode()).hexdigest()[:12]
        return user_path(self.output) / f"fit-{name}"

    def _outputs(self, X: Any) -> Any:
        """Compute the outputs of the model, (num_texts, num_outputs) float64."""
        import torch

        texts = self._read_again(X)
        return torch.cat(list(self.model_.logits(texts))).double()


def _rows(texts: Sequence[Text], targets: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the columns of a table to learn from."""
    kinds = {isinstance(text, str) for text in texts}
    if len(kinds) > 1:
        raise InputError("X: has texts and pairs of texts; expected either")
    if kinds == {True}:
        return {"text": list(texts), "label": list(targets)}
    firsts, seconds = zip(*texts, strict=True)
    return {"text": list(firsts), "text_pair": list(seconds), "label": list(targets)}


@dataclass(eq=False, repr=False, kw_only=True)
class ModernBertClassifier(ClassifierMixin, _FineTuned):  # type: ignore[misc]
    """Learns the labels of texts or of pairs of texts: one per text, or any number of them.

    For any number of labels y is an indicator matrix, (num_texts, num_labels), as
    `MultiLabelBinarizer` makes it. Sample weights are not supported.

    Args:
        model: The folder or hub id of the model to start from.
        epochs: How often each text is seen.
        learning_rate: The highest learning rate; by the model's width when None.
        weight_decay: Weight decay per step, at the highest learning rate.
        batch_size: Texts per step.
        max_seqlen: The longest sequence, in tokens; the model's when None.
        pooling: How the vectors of tokens become one, `mean` or `cls`.
        class_weight: With `balanced`, rare labels count as much as frequent ones.
        few_shot: Learn from a few texts, by contrasting pairs of them.
        validation_fraction: The fraction of the texts to hold out, to choose the best weights
            among those of all epochs; none when None.
        precision: What predictions are computed in: `auto`, `float32`, `bfloat16` or `int8`.
        random_state: The seed: the same one gives the same model. None, or a generator of NumPy,
            draws one.
        output: A folder that keeps every fit in a folder of its own, with its page and results.
            The same fit again goes on where it was stopped, or is there at once. None uses a
            temporary folder.
        settings: More settings of the recipe by name, such as `{"patience": 2}`.
        verbose: Whether to show the progress.

    Attributes:
        classes_: The labels.
        model_: The `Classifier`.
    """

    verb = "classify"

    class_weight: str | None = None
    few_shot: bool = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> "ModernBertClassifier":
        """Fine-tune the model on texts and their labels.

        Args:
            X: Texts or pairs; see `read_texts`.
            y: (num_texts,) labels, or (num_texts, num_labels) of 0 and 1.

        Raises:
            ValueError: Texts or labels that cannot be learned from.
            ModernBertError: The model or a setting cannot be used.
        """
        if self.class_weight not in (None, "balanced"):
            raise InputError(
                f"class_weight: got {self.class_weight!r}, expected None or 'balanced'"
            )
        texts = self._read(X, y)
        targets, names = self._targets(y)
        weights = "equal" if self.class_weight is None else self.class_weight
        options = {"class_weights": weights, "few_shot": self.few_shot, "labels": names}
        self._finetune(texts, targets, **options)
        return self

    def _targets(self, y: Any) -> tuple[list[Any], list[str]]:
        """Return what to learn for each text, and the names of the labels."""
        columns = list(map(str, y.columns)) if is_frame(y) else None
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        self._is_multi_label = type_of_target(y) == "multilabel-indicator"
        if self._is_multi_label:
            self.classes_ = np.arange(y.shape[1]) if columns is None else np.array(columns)
            return y.astype(int).tolist(), list(map(str, self.classes_.tolist()))
        y = column_or_1d(y, warn=True)
        self.classes_, indices = np.unique(y, return_inverse=True)
        return self.classes_[indices].tolist(), _names(self.classes_)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most likely label of each text, or 0 or 1 for each label."""
        scores = self.predict_proba(X)
        if self._is_multi_label:
            thresholds = self.model_.model.settings.thresholds or 0.5
            return (scores >= np.asarray(thresholds)).astype(int)
        found: np.ndarray = self.classes_[scores.argmax(axis=1)]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each label: (num_texts, num_labels), as in `classes_`."""
        outputs = self._outputs(X)
        settings = self.model_.model.settings
        scores: np.ndarray = as_scores(outputs, settings.problem, settings.temperature).numpy()
        return scores


def _names(classes: np.ndarray) -> list[str]:
    """Return the names of the labels in a model.

    Raises:
        InputError: There is only one label, two have the same name, or one has none.
    """
    labels = classes.tolist()
    if len(labels) < 2:
        raise InputError(f"y: has only 1 class, {labels[0]!r}; expected two or more")
    if listed := [label for label in labels if looks_like_list(label)]:
        raise InputError(f"y: got the label {listed[0]!r}, which looks like a list of labels")
    names = row_label_names(labels, "y", "label")
    if len(set(names)) < len(names):
        raise InputError(f"y: several labels have one name: {', '.join(sorted(names))}")
    return names


class ModernBertRegressor(RegressorMixin, _FineTuned):  # type: ignore[misc]
    """Learns a number for each text or pair of texts.

    Sample weights are not supported.

    Args:
        model: The folder or hub id of the model to start from.
        epochs: How often each text is seen.
        learning_rate: The highest learning rate; by the model's width when None.
        weight_decay: Weight decay per step, at the highest learning rate.
        batch_size: Texts per step.
        max_seqlen: The longest sequence, in tokens; the model's when None.
        pooling: How the vectors of tokens become one, `mean` or `cls`.
        validation_fraction: As in `ModernBertClassifier`, like all that follow.
        precision: What predictions are computed in.
        random_state: The seed.
        output: A folder that keeps every fit.
        settings: More settings of the recipe by name.
        verbose: Whether to show the progress.

    Attributes:
        model_: The `Classifier`, whose one output is the number.
    """

    verb = "regress"

    def fit(self, X: Any, y: Any) -> "ModernBertRegressor":
        """Fine-tune the model on texts and their numbers.

        Args:
            X: Texts or pairs; see `read_texts`.
            y: (num_texts,) numbers.

        Raises:
            ValueError: Texts or numbers that cannot be learned from.
            ModernBertError: The model or a setting cannot be used.
        """
        texts = self._read(X, y)
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        numbers = column_or_1d(y, warn=True).astype(float).tolist()
        if len(set(numbers)) == 1:
            raise InputError(
                f"y: is {numbers[0]:g} in every row (n_samples={len(numbers)}); "
                "there is nothing to learn"
            )
        self._finetune(texts, numbers)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the number of each text, (num_texts,) float64."""
        numbers: np.ndarray = self._outputs(X)[:, 0].numpy()
        return numbers


@dataclass(eq=False, repr=False)
class EmbeddingTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _TextEstimator):  # type: ignore[misc]
    """Turns texts into vectors; it learns nothing.

    Args:
        model: The folder or hub id of an embedder, or of any model that has an encoder.
        prompt: A text to put before each text.
        prompt_name: The name of one of the model's prompts.
        normalize: Whether to scale each vector to length 1.
        truncate_dim: The number of leading dimensions to keep, for a model trained for it.
        pooling: How the vectors of tokens become one; the model's own way when None.
        precision: What it computes in: `auto`, `float32`, `bfloat16` or `int8`.

    Attributes:
        model_: The `Embedder`.
    """

    model: Path | str = BASE
    _: KW_ONLY
    prompt: str | None = None
    prompt_name: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    pooling: str | None = None
    precision: str = "auto"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # vectors are always float32
        return tags

    def fit(self, X: Any, y: Any = None) -> "EmbeddingTransformer":  # noqa: ARG002
        """Load the model.

        Args:
            X: Texts; see `read_texts`.
            y: Not used.

        Raises:
            ValueError: There are no texts in X.
            ModernBertError: The model cannot be used.
        """
        self._read(X)
        folder = find_model(self.model, weights=True)
        options: Any = {"precision": self.precision, "pooling": self.pooling}
        self.trained_ = FittedModel(folder, partial(Embedder.from_pretrained, **options))
        self._n_features_out = self.truncate_dim or self.model_.dim
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the vectors of texts, (num_texts, dim) float32."""
        texts = self._read_again(X)
        vectors: np.ndarray = self.model_.encode(
            texts,
            prompt=self.prompt,
            prompt_name=self.prompt_name,
            normalize_embeddings=self.normalize,
            truncate_dim=self.truncate_dim,
        )
        return vectors

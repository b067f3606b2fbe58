"""The estimators: scikit-learn's own checks, its pipelines and searches, and what they refuse."""

import inspect
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_array
from tests.small_models import write_masked_model

from modernbert import EmbeddingTransformer, ModernBertClassifier, ModernBertRegressor, load
from modernbert.errors import InputError
from modernbert.tasks.labels.recipe import ClassifyTraining
from modernbert.tasks.tuning import sweep
from modernbert.tokenizer.train import train

TEXTS = ["a good film, well told", "a bad film", "a fine story, good to read", "a dull story"] * 6
LABELS = ["good", "bad"] * 12
NUMBERS = [1.0, 0.0] * 12
COLUMNS, BINS = "qrstuvwxyz", "abcdefghijklmno"
SPELLED = [column + number for column in COLUMNS for number in BINS]


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of half a second, and there are many: their page is not drawn."""
    monkeypatch.setattr(sweep, "write_page_of_runs", lambda *_: None)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tokenizer = train([*TEXTS * 3, *[" ".join(SPELLED)] * 20], vocab_size=640)
    return write_masked_model(folder, tokenizer, intermediate_size=32, num_layers=1)


FAST: dict[str, Any] = {
    "epochs": 3,
    "learning_rate": 1e-2,
    "batch_size": 8,
    "precision": "float32",
    "settings": {"training.precision": "float32"},
}


class OfNumbers:
    """Spells rows of numbers as words, so that scikit-learn's checks reach what is behind."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags

    def _texts(self, X: Any) -> Any:
        rows = check_array(X, dtype="numeric").astype(float)
        bins = np.clip(np.round(rows * 3) + 7, 0, len(BINS) - 1).astype(int)
        return [
            " ".join(COLUMNS[column % 10] + BINS[number] for column, number in enumerate(row))
            for row in bins
        ]


class ClassifierOfNumbers(OfNumbers, ModernBertClassifier):
    pass


class RegressorOfNumbers(OfNumbers, ModernBertRegressor):
    pass


class TransformerOfNumbers(OfNumbers, EmbeddingTransformer):
    pass


CANNOT_HOLD: dict[type, dict[str, str]] = {
    ClassifierOfNumbers: {
        "check_class_weight_classifiers": "the recipe weighs labels equally or balanced, not by "
        "a dictionary",
    },
    RegressorOfNumbers: {},
    TransformerOfNumbers: {},
}
"""Checks of scikit-learn that an estimator of texts cannot pass, with the reason."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", CANNOT_HOLD, ids=lambda kind: kind.__name__)
def test_scikit_learns_checks(kind: Any, start: Path) -> None:
    given = dict(FAST) if hasattr(kind, "verb") else {"precision": "float32"}
    results = check_estimator(
        kind(start, **given), expected_failed_checks=CANNOT_HOLD[kind], on_skip=None
    )
    failed = {each["check_name"] for each in results if each["status"] == "xfail"}
    assert failed == CANNOT_HOLD[kind].keys()
    assert sum(each["status"] == "passed" for each in results) > 40


@pytest.mark.parametrize("kind", [ModernBertClassifier, ModernBertRegressor, EmbeddingTransformer])
def test_scikit_learn_knows_that_they_read_texts(kind: Any, start: Path) -> None:
    with pytest.warns(UserWarning, match="string=True"):
        check_estimator(kind(start))


def test_the_defaults_are_those_of_the_recipe() -> None:
    recipe = ClassifyTraining()
    for name, parameter in inspect.signature(ModernBertClassifier).parameters.items():
        if hasattr(recipe, name) and name != "precision":
            assert parameter.default == getattr(recipe, name), name
    assert not hasattr(ModernBertClassifier(), "model_")


@pytest.fixture(scope="module")
def fitted(start: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "write_page_of_runs", lambda *_: None)
        return ModernBertClassifier(start, **FAST).fit(TEXTS, LABELS)


def test_labels(fitted: Any) -> None:
    assert fitted.classes_.tolist() == ["bad", "good"]
    assert fitted.score(TEXTS, LABELS) == 1.0
    chances = fitted.predict_proba(TEXTS[:2])
    assert chances.shape == (2, 2) and np.allclose(chances.sum(1), 1)
    assert (fitted.predict_proba(pandas.Series(TEXTS[:2])) == chances).all()
    assert (fitted.predict_proba(pandas.DataFrame({"any": TEXTS[:2]})) == chances).all()
    assert (fitted.predict_proba(np.array(TEXTS[:2])[:, None]) == chances).all()


def test_a_fitted_model_is_pickled_whole(fitted: Any) -> None:
    content = pickle.dumps(fitted)
    other = pickle.loads(content)
    assert other.trained_.folder != fitted.trained_.folder
    assert (other.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    folder = other.trained_.folder
    del other
    assert not folder.exists()
    unfitted = pickle.loads(pickle.dumps(clone(fitted)))
    assert not hasattr(unfitted, "model_") and unfitted.get_params()["epochs"] == 3


def test_a_seed_decides_everything(fitted: Any, start: Path) -> None:
    again = ModernBertClassifier(start, **FAST).fit(TEXTS, LABELS)
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    drawn = [
        ModernBertClassifier(start, **FAST, random_state=np.random.RandomState(seed))
        .fit(TEXTS, LABELS)
        .predict_proba(TEXTS)
        for seed in (1, 1, 2)
    ]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize(
    "labels", [[7, 5] * 12, [1.0, 0.0] * 12, [True, False] * 12, ["1.0", "0"] * 12, ["[b]", "(b)"]]
)
def test_labels_of_any_type_come_back(labels: list[Any], start: Path) -> None:
    estimator = ModernBertClassifier(start, **FAST)
    if len(labels) == 2:
        with pytest.raises(InputError, match="looks like a list"):
            estimator.fit(TEXTS[:2], labels)
        return
    assert estimator.fit(TEXTS, labels).predict(TEXTS[:2]).tolist() == labels[:2]
    assert type(estimator.classes_.tolist()[0]) is type(labels[0])


def test_several_labels_a_text(start: Path) -> None:
    names = [["good", "long"], [], ["good"], ["long"]] * 6
    flags = MultiLabelBinarizer().fit_transform(names)
    estimator = ModernBertClassifier(start, **{**FAST, "epochs": 12}).fit(TEXTS, flags)
    assert estimator.predict_proba(TEXTS).shape == (24, 2)
    assert (estimator.predict(TEXTS) == flags).mean() > 0.9
    frame = pandas.DataFrame(flags, columns=["good", "long"])
    named = ModernBertClassifier(start, **FAST).fit(TEXTS, frame)
    assert list(named.classes_) == list(named.model_.labels) == ["good", "long"]


def test_pairs_of_texts(start: Path) -> None:
    frame = pandas.DataFrame({"first": TEXTS, "second": TEXTS[::-1]})
    estimator = ModernBertClassifier(start, **FAST).fit(frame, LABELS)
    chances = estimator.predict_proba(frame)
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    same = ModernBertClassifier(start, **FAST).fit(pairs, LABELS)
    assert (same.predict_proba(pairs) == chances).all()
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame.rename(columns={"first": "other"}))
    with pytest.raises(ValueError, match="expecting 2 features"):
        same.predict(TEXTS)


def test_numbers(start: Path) -> None:
    estimator = ModernBertRegressor(start, **{**FAST, "epochs": 8}).fit(TEXTS, NUMBERS)
    assert estimator.predict(TEXTS[:3]).shape == (3,)
    assert estimator.score(TEXTS, NUMBERS) > 0.5


def test_a_search_in_a_pipeline_on_two_processes(start: Path) -> None:
    frame = pandas.DataFrame({"text": TEXTS, "label": LABELS, "length": map(len, TEXTS)})
    choose = ColumnTransformer([("text", "passthrough", ["text"])])
    pipeline = make_pipeline(choose, ModernBertClassifier(start, **FAST))
    grid = {"modernbertclassifier__epochs": [1, 3]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise")
    search.fit(frame, frame["label"])
    assert search.best_params_ == {"modernbertclassifier__epochs": 3}
    assert search.predict(frame[:2]).tolist() == ["good", "bad"]


def test_cross_validation_with_held_out_rows(start: Path) -> None:
    estimator = ModernBertClassifier(start, **FAST, validation_fraction=0.25)
    scores = cross_val_score(estimator, TEXTS, LABELS, cv=2, error_score="raise")
    assert scores.shape == (2,)


def test_fits_that_are_kept_are_not_made_twice(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = partial(ModernBertClassifier, start, **FAST, output=tmp_path / "fits")
    first = make().fit(TEXTS, LABELS)
    (folder,) = (tmp_path / "fits").iterdir()
    assert load(folder / "model")
    monkeypatch.setattr("modernbert.training.trainer.Trainer.run", None)
    again = make().fit(TEXTS, LABELS)
    assert (again.predict_proba(TEXTS) == first.predict_proba(TEXTS)).all()
    with pytest.raises(TypeError):
        make().fit(TEXTS, LABELS[::-1])


def test_vectors(start: Path) -> None:
    vectors = EmbeddingTransformer(start, precision="float32").fit_transform(TEXTS)
    expected = load(start, precision="float32")
    assert vectors.shape == (24, 64) and vectors.dtype == np.float32 and expected
    frame = (
        EmbeddingTransformer(start, normalize=True, truncate_dim=8)
        .set_output(transform="pandas")
        .fit_transform(pandas.Series(TEXTS, index=range(5, 29)))
    )
    assert frame.shape == (24, 8) and frame.columns[0] == "embeddingtransformer0"
    assert frame.index[0] == 5
    assert np.allclose((frame**2).sum(axis=1), 1)
    pipeline = make_pipeline(EmbeddingTransformer(start), LogisticRegression())
    scores = cross_val_score(pipeline, TEXTS, LABELS, cv=3, error_score="raise")
    assert scores.mean() > 0.5


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", "expected a list of texts"),
        ({"text": TEXTS}, "expected a list of texts"),
        (5, "expected a list of texts"),
        ([], "has 0 texts"),
        ([*TEXTS[:23], None], "row 23: got nothing, expected a text"),
        (np.zeros((24, 2)), "row 0: got"),
        (np.full((24, 3), "a"), "row 0 has 3 columns"),
        ([*TEXTS[:23], ("a", "b")], "texts and pairs of texts"),
        (TEXTS[:23], "inconsistent numbers of samples"),
    ],
)
def test_what_holds_no_texts_is_refused(texts: Any, message: str, start: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ModernBertClassifier(start, **FAST).fit(texts, LABELS)


def test_what_labels_are_refused(start: Path) -> None:
    estimator = ModernBertClassifier(start, **FAST)
    with pytest.raises(InputError, match="has only 1 class, 'a'"):
        estimator.fit(TEXTS, ["a"] * 24)
    with pytest.raises(ValueError, match="Unknown label type"):
        estimator.fit(TEXTS, [0.5, 1.5] * 12)
    with pytest.raises(InputError, match=r"class_weight: got \{0: 2\}"):
        estimator.set_params(class_weight={0: 2}).fit(TEXTS, LABELS)
    with pytest.raises(TypeError, match="sample_weight"):
        estimator.fit(TEXTS, LABELS, sample_weight=[1.0] * 24)

"""Folders of sentence-transformers mean here what they mean there, key by key."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.inference.conftest import shaken

from modernbert.errors import ModelFolderError
from modernbert.inference.embedder import Embedder
from modernbert.inference.reranker import Reranker
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import DenseActivation
from modernbert.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["the Square of number 3", "NOT less", "root and sum and not less", "a"]
PAIRS = [("What is the Square", text) for text in TEXTS]
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.fixture(scope="module")
def plain(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder, model_max_length=10**30)
    return folder


def steps(plain: Path, pooling: Any = "mean", **settings: Any) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooled = {key: settings.pop(key) for key in ("include_prompt",) if key in settings}
    return [Transformer(str(plain), **settings), Pooling(64, pooling, **pooled)]


def embedder_of(folder: Path, modules: list[Any], **settings: Any) -> tuple[Any, Embedder]:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(modules=modules, device="cpu", **settings)
    theirs.save(str(folder))
    return theirs, Embedder.from_pretrained(folder, precision="float32")


def assert_equal(theirs: Any, ours: Embedder, **options: Any) -> None:
    for name in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, name)(TEXTS, **options)
        got = getattr(ours, name)(TEXTS, **options)
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("pooling", [*POOLINGS, ["max", "cls"], ["cls", "max", "weightedmean"]])
def test_poolings(plain: Path, tmp_path: Path, pooling: Any) -> None:
    theirs, ours = embedder_of(tmp_path / "st", steps(plain, pooling))
    assert_equal(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    from sentence_transformers import SentenceTransformer

    assert_equal(SentenceTransformer(str(tmp_path / "ours"), device="cpu"), ours)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_prompts_that_are_not_pooled(plain: Path, tmp_path: Path, pooling: Any) -> None:
    theirs, ours = embedder_of(
        tmp_path,
        steps(plain, pooling, include_prompt=False),
        prompts={"query": "the sum: ", "document": "not "},
        default_prompt_name="query",
    )
    assert_equal(theirs, ours)


def test_lower_case_lengths_and_dimensions(plain: Path, tmp_path: Path) -> None:
    modules = steps(plain, do_lower_case=True, max_seq_length=6)
    theirs, ours = embedder_of(tmp_path / "st", modules, truncate_dim=24)
    _say(tmp_path / "st" / "sentence_bert_config.json", do_lower_case=True, max_seq_length=6)
    ours = Embedder.from_pretrained(tmp_path / "st", precision="float32")
    assert ours.dim == 24 and ours.max_seqlen == 6
    with pytest.warns(match="were cut"):
        got = ours.encode(TEXTS)
    np.testing.assert_allclose(got, theirs.encode(TEXTS), atol=2e-5)
    with pytest.warns(match="were cut"):
        short = ours.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    expected = theirs.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(short, expected, atol=2e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(plain: Path, tmp_path: Path, similarity: Any) -> None:
    theirs, ours = embedder_of(tmp_path, steps(plain), similarity_fn_name=similarity)
    vectors = ours.encode(TEXTS)
    expected = theirs.similarity(vectors, vectors).numpy()
    np.testing.assert_allclose(ours.similarity(vectors, vectors), expected, atol=1e-4)


def test_layers_behind_pooling(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm

    torch.manual_seed(0)
    norm = LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight)
    layers = [
        Normalize(),
        Dense(128, 32, activation_function=torch.nn.GELU()),
        Dropout(0.5),
        norm,
        Dense(32, 16, bias=False, use_residual=True),
        Normalize(),
    ]
    theirs, ours = embedder_of(tmp_path / "st", [*steps(plain, ["cls", "mean"]), *layers])
    assert ours.dim == 16 and ours.settings.normalize
    assert_equal(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    from sentence_transformers import SentenceTransformer

    assert_equal(SentenceTransformer(str(tmp_path / "ours"), device="cpu"), ours)
    assert_equal(theirs, Embedder.from_pretrained(tmp_path / "ours", precision="float32"))


@pytest.mark.parametrize("name", DenseActivation.__args__)  # type: ignore[attr-defined]
def test_activations(plain: Path, tmp_path: Path, name: str) -> None:
    from sentence_transformers.base.modules import Dense

    dense = Dense(64, 8, activation_function=getattr(torch.nn, name)())
    assert_equal(*embedder_of(tmp_path, [*steps(plain), dense]))


@pytest.fixture(scope="module")
def scorer(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    settings = ClassifierSettings(labels=("relevance",), problem="regression")
    model = initialize(SequenceClassifier(config, settings), seed=0)
    shaken(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity", "Tanh"])
def test_a_cross_encoder_with_a_prompt(scorer: Path, tmp_path: Path, activation: str) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(
        str(scorer),
        device="cpu",
        activation_fn=getattr(torch.nn, activation)(),
        prompts={"web": "the sum of: "},
        default_prompt_name="web",
        max_length=16,
    )
    theirs.save_pretrained(str(tmp_path))
    _say(tmp_path / "sentence_bert_config.json", do_lower_case=True, max_seq_length=16)
    theirs = CrossEncoder(str(tmp_path), device="cpu")
    ours = Reranker.from_pretrained(tmp_path, precision="float32")
    with pytest.warns(match="were cut"):
        got = ours.scores(PAIRS)
    np.testing.assert_allclose(got, theirs.predict(PAIRS), atol=1e-5)


def test_a_reranker_made_of_steps(plain: Path, tmp_path: Path) -> None:
    """As the published Ettin rerankers are."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    identity = torch.nn.Identity()
    layers = [
        Dense(64, 64, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(64),
        Dense(64, 1, activation_function=identity, module_output_name="scores"),
    ]
    modules = [*steps(plain, "cls"), *layers]
    theirs = CrossEncoder(modules=modules, device="cpu", activation_fn=identity)
    theirs.save_pretrained(str(tmp_path))
    ours = Reranker.from_pretrained(tmp_path, precision="float32")
    np.testing.assert_allclose(ours.scores(PAIRS), theirs.predict(PAIRS), atol=1e-5)
    best = [each.index for each in ours.rank(PAIRS[0][0], TEXTS)]
    assert best == [each["corpus_id"] for each in theirs.rank(PAIRS[0][0], TEXTS)]


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("sentence_bert_config.json", {"processing_kwargs": {}}, "unknown key 'processing_kwargs'"),
        ("sentence_bert_config.json", {"max_seq_length": 8.5}, "max_seq_length: got 8.5"),
        ("config_sentence_transformers.json", {"truncate_dim": "9"}, "truncate_dim: got '9'"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "x"}, "similarity_fn_name"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, r"prompts: got \['a'\]"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode.*'median'"),
        ("1_Pooling/config.json", {"include_prompt": 1}, "include_prompt: got 1"),
        ("1_Pooling/config.json", {"strange": 1}, "unknown key 'strange'"),
        ("2_Dense/config.json", {"activation_function": "mine.Act"}, "activation mine.Act is not"),
        ("2_Dense/config.json", {"in_features": True}, "in_features: got True"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
    ],
)
def test_what_is_not_honoured_is_refused(
    plain: Path, tmp_path: Path, name: str, said: dict[str, Any], message: str
) -> None:
    from sentence_transformers.base.modules import Dense

    embedder_of(tmp_path, [*steps(plain), Dense(64, 8)])
    _say(tmp_path / name, **said)
    with pytest.raises(ModelFolderError, match=f"{name.rpartition('/')[2]}.*{message}"):
        Embedder.from_pretrained(tmp_path)


def test_several_dense_layers_with_others_between_them(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize

    middle = [Dense(64, 96, bias=False), LayerNorm(96), Dropout(0.5), Normalize()]
    last = [Dense(96, 32, activation_function=torch.nn.ReLU()), Dense(32, 8), Normalize()]
    assert_equal(*embedder_of(tmp_path, [*steps(plain), *middle, *last]))


@pytest.mark.parametrize("kind", ["WeightedLayerPooling", "CNN", "LSTM", "Router", "WordWeights"])
def test_steps_of_other_kinds_are_named(plain: Path, tmp_path: Path, kind: str) -> None:
    embedder_of(tmp_path, steps(plain))
    path = tmp_path / "modules.json"
    modules = json.loads(path.read_text())
    modules.insert(1, {**modules[0], "type": f"sentence_transformers.models.{kind}", "path": "x"})
    path.write_text(json.dumps(modules))
    with pytest.raises(ModelFolderError, match=rf"modules.json: .*{kind}.* not supported"):
        Embedder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "key", ["model_args", "tokenizer_args", "config_kwargs", "processor_kwargs", "message_format"]
)
def test_arguments_of_the_transformer_are_named(plain: Path, tmp_path: Path, key: str) -> None:
    embedder_of(tmp_path, steps(plain))
    _say(tmp_path / "sentence_bert_config.json", **{key: {"local_attention": 4}})
    with pytest.raises(ModelFolderError, match=f"sentence_bert_config.json: unknown key '{key}'"):
        Embedder.from_pretrained(tmp_path)


def test_what_is_ignored_on_purpose(plain: Path, tmp_path: Path) -> None:
    theirs, _ = embedder_of(tmp_path, steps(plain))
    _say(
        tmp_path / "config_sentence_transformers.json", _comment="by hand", requirements={"a": "1"}
    )
    _say(tmp_path / "sentence_bert_config.json", unpad_inputs=True, query_length=None)
    assert_equal(theirs, Embedder.from_pretrained(tmp_path, precision="float32"))


def _say(path: Path, **said: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **said}))

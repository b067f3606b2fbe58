"""Fill-mask: the likeliest tokens, and what is said about texts that cannot be filled."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError, TokenizerError
from modernbert.inference.fill_mask import FillMask, Prediction
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

TEXT = "the [MASK] of number 5 is [MASK]."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [f"the square of number {i} is {i * i}, not less." for i in range(99)]
    return train(texts, vocab_size=448)


def model_for(tokenizer: Tokenizer, **changes: int) -> MaskedLanguageModel:
    names = ("vocab_size", "mask_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
    numbers = {name: getattr(tokenizer, name) for name in (*names, "unk_token_id")}
    sizes = {"hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "max_seqlen": 24}
    config = EncoderConfig.preset("tiny", **{**numbers, **sizes, **changes})
    model = initialize(MaskedLanguageModel(config), seed=0)
    with torch.no_grad():
        model.decoder_weight.mul_(20)  # so that the predictions differ clearly
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> MaskedLanguageModel:
    return model_for(tokenizer)


@pytest.fixture(scope="module")
def fill_mask(model: MaskedLanguageModel, tokenizer: Tokenizer) -> FillMask:
    return FillMask(model, tokenizer)


def test_the_likeliest_tokens_of_each_mask(
    fill_mask: FillMask, model: MaskedLanguageModel, tokenizer: Tokenizer
) -> None:
    token_ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        probabilities = model(PackedBatch.from_sequences([token_ids])).softmax(1)
    places = [i for i, token_id in enumerate(token_ids) if token_id == tokenizer.mask_token_id]
    assert len(places) == 2
    for place, predictions in zip(places, fill_mask(TEXT, 3), strict=True):
        best = probabilities[place].topk(3)
        assert [p.token_id for p in predictions] == best.indices.tolist()
        num_terms = terms_of_encoder(model.config, len(token_ids)) + tokenizer.vocab_size
        scores = [p.score for p in predictions]
        assert_equal_but_for_rounding(scores, best.values, num_terms=num_terms)
        assert [p.token for p in predictions] == [
            tokenizer.decode([p.token_id]) for p in predictions
        ]
    first, second = fill_mask(TEXT, 1)
    assert first != second


def test_a_token_keeps_the_space_it_begins_with(tokenizer: Tokenizer) -> None:
    (wanted,) = tokenizer.encode(" square", special_tokens=False)
    fill_mask = FillMask(model_for(tokenizer), tokenizer)
    with torch.no_grad():
        fill_mask.model.decoder_bias[wanted] = 500
    ((prediction,), _) = fill_mask(TEXT, 1)
    assert prediction == Prediction(" square", wanted, pytest.approx(1.0))


def test_scores_add_up_to_one(fill_mask: FillMask, tokenizer: Tokenizer) -> None:
    (all_of_them,) = fill_mask("[MASK]", tokenizer.vocab_size)
    assert sum(prediction.score for prediction in all_of_them) == pytest.approx(1.0, abs=1e-5)
    scores = [prediction.score for prediction in all_of_them]
    assert scores == sorted(scores, reverse=True)
    assert len(fill_mask("[MASK]")[0]) == 5


def test_from_a_folder(
    tmp_path: Path, fill_mask: FillMask, model: MaskedLanguageModel, tokenizer: Tokenizer
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        assert FillMask.from_pretrained(folder, precision="float32")(TEXT) == fill_mask(TEXT)
    for ours, theirs in zip(FillMask.from_pretrained(tmp_path)(TEXT), fill_mask(TEXT), strict=True):
        assert ours[0].score == pytest.approx(theirs[0].score, rel=0.1)


def test_a_model_made_ready_for_inference(tokenizer: Tokenizer, fill_mask: FillMask) -> None:
    ready = FillMask(model_for(tokenizer).for_inference("float32"), tokenizer)
    for ours, theirs in zip(ready(TEXT), fill_mask(TEXT), strict=True):
        assert [p.token_id for p in ours] == [p.token_id for p in theirs]


def test_folders_that_lack_something(
    tmp_path: Path, model: MaskedLanguageModel, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ModelFolderError, match="nowhere: no such folder"):
        FillMask.from_pretrained(tmp_path / "nowhere")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        FillMask.from_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ModelFolderError, match="holds a tokenizer, expected a masked"):
        FillMask.from_pretrained(tmp_path / "tokenizer")


def test_a_tokenizer_of_another_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"^tokenizer: its mask_token_id is \d+, .* model's is 3"):
        FillMask(model_for(tokenizer, mask_token_id=3), tokenizer)
    names = ("unk_token_id", "cls_token_id", "sep_token_id", "pad_token_id", "mask_token_id")
    ids = dict.fromkeys(names, 3)
    with pytest.raises(InputError, match=r"^tokenizer: its vocab_size is 448, .* model's is 128"):
        FillMask(model_for(tokenizer, vocab_size=128, **ids), tokenizer)


def test_a_small_vocabulary_whose_config_does_not_name_the_mask(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """So transformers writes it; files of a compiled model have a prefix before the names."""
    model = model_for(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["mask_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"_orig_mod.{x}": y for x, y in tensors.items()}, tmp_path / "model.safetensors")
    loaded = FillMask.from_pretrained(tmp_path, precision="float32")
    assert loaded(TEXT) == FillMask(model, tokenizer)(TEXT)


def test_a_vocabulary_that_is_padded_beyond_the_tokenizer(tokenizer: Tokenizer) -> None:
    """Published models round their vocabulary up; nothing is predicted from what is added."""
    model = model_for(tokenizer, vocab_size=512)
    with torch.no_grad():
        model.decoder_bias[448:] = 1e4
    predictions = FillMask(model, tokenizer)("The [MASK] is here.", top_k=448)[0]
    assert sorted(each.token_id for each in predictions) == list(range(448))
    assert sum(each.score for each in predictions) == pytest.approx(1, rel=1e-5)


def test_texts_that_cannot_be_filled(fill_mask: FillMask) -> None:
    with pytest.raises(
        InputError, match=r"^text: no \[MASK\] in 'Paris is \[mask\]'; write \[MASK\]"
    ):
        fill_mask("Paris is [mask]")
    with pytest.raises(InputError, match=r"^text: no \[MASK\] in '( number){5} numb\.\.\.';"):
        fill_mask(" number" * 6)
    with pytest.raises(
        InputError, match=r"^text: \d\d tokens long, but the model reads 24; shorten"
    ):
        fill_mask("[MASK] " * 23)
    assert len(fill_mask("[MASK]" * 22)) == 22  # with [CLS] and [SEP] just as long as it reads


@pytest.mark.parametrize("top_k", [0, -1, 449])
def test_a_top_k_that_cannot_be(fill_mask: FillMask, top_k: int) -> None:
    with pytest.raises(InputError, match=f"^top_k: got {top_k}, expected 1 to 448"):
        fill_mask(TEXT, top_k)


def test_a_list_is_a_batch(fill_mask: FillMask) -> None:
    texts = ["The [MASK] was good.", "A [MASK]."]
    assert fill_mask(texts, 2) == fill_mask.fill(texts, 2)

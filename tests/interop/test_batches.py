"""Packed batches: the loss and the gradients of padded ones, and documents that see themselves."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.interop.conftest import Make
from torch import Tensor
from torch.utils.data import Dataset

from modernbert import DataCollatorWithPacking, accelerate
from modernbert.errors import InputError

TEXTS = [f"the square of {i} is {i * i}" + ", not less" * (i % 4) for i in range(24)]


@pytest.fixture(scope="module")
def features(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Encoded texts with labels at every third token."""
    encoded = [tokenizer(text)["input_ids"] for text in TEXTS]
    return [
        {"input_ids": ids, "labels": [x if i % 3 == 1 else -100 for i, x in enumerate(ids)]}
        for ids in encoded
    ]


def padded(features: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    columns = max(len(feature["input_ids"]) for feature in features)

    def rows(name: str, value: int) -> Tensor:
        lists = [feature[name] for feature in features]
        return torch.tensor([row + [value] * (columns - len(row)) for row in lists])

    ids = rows("input_ids", -1)
    mask = (ids != -1).long()
    return {
        "input_ids": ids.clamp(min=0),
        "attention_mask": mask,
        "labels": rows("labels", -100),
    }


def answers(model: Any, batch: dict[str, Any], **more: Any) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    loss = model(**batch, **more).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("num_items", [None, 50])
@pytest.mark.parametrize("kind", ["ForMaskedLM", "ForTokenClassification"])
def test_packed_is_padded(
    make: Make, tokenizer: Any, features: Any, kind: str, num_items: int | None, head_size: int
) -> None:
    model = make(kind, head_size=head_size, num_labels=448).train()
    more = {} if num_items is None else {"num_items_in_batch": num_items}
    loss, gradients = answers(model, padded(features[:6]), **more)
    packed = DataCollatorWithPacking(tokenizer)(features[:6])
    our_loss, ours = answers(accelerate(model), packed, **more)
    assert abs(loss - our_loss) < 1e-5
    for one, two in zip(gradients, ours, strict=True):
        assert (one - two).abs().max() < 1e-4 * float(one.abs().max()) + 1e-7


def test_documents_do_not_see_each_other(make: Make, tokenizer: Any, features: Any) -> None:
    model = accelerate(make("ForMaskedLM"))
    batch = DataCollatorWithPacking(tokenizer)(features[:5])
    del batch["labels"]
    with torch.no_grad():
        alone = [model(torch.tensor([f["input_ids"]])).logits[0] for f in features[:5]]
        together = model(**batch).logits
    assert together.shape == (1, batch["input_ids"].shape[1], 448)
    assert (torch.cat(alone) - together[0]).abs().max() < 1e-5


def test_only_labelled_rows_go_through_the_vocabulary(
    make: Make, tokenizer: Any, features: Any
) -> None:
    model = accelerate(make("ForMaskedLM"))
    batch = DataCollatorWithPacking(tokenizer)(features[:5])
    output = model(**batch)
    assert output.logits.shape == (int((batch["labels"] != -100).sum()), 448)
    loss, logits = model(**batch, return_dict=False)
    assert torch.equal(loss, output.loss) and torch.equal(logits, output.logits)


def test_transformers_own_flattening_collator(
    make: Make, transformers: Any, tokenizer: Any, features: Any
) -> None:
    theirs = transformers.DataCollatorWithFlattening(return_flash_attn_kwargs=True)(features[:5])
    ours = DataCollatorWithPacking(tokenizer)(features[:5])
    theirs["labels"] = ours["labels"]  # theirs leaves out each first one, for causal models
    model = accelerate(make("ForMaskedLM"))
    assert torch.equal(model(**theirs).loss, model(**ours).loss)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shapes_and_borders(tokenizer: Any, data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, 447), min_size=1, max_size=20)
    rows = data.draw(st.lists(ids, min_size=1, max_size=8))
    batch = DataCollatorWithPacking(tokenizer)([{"input_ids": row} for row in rows])
    borders = batch["cu_seq_lens_q"].tolist()
    flat = batch["input_ids"][0].tolist()
    assert [flat[a:b] for a, b in pairwise(borders)] == rows
    assert batch["max_length_q"] == max(map(len, rows)) and "labels" not in batch


def test_masking(tokenizer: Any, features: Any) -> None:
    collate = DataCollatorWithPacking(tokenizer, mlm_probability=0.3)
    original = torch.tensor([x for feature in features for x in feature["input_ids"]])
    torch.manual_seed(0)
    batches = [collate(features) for _ in range(40)]
    labels = torch.cat([batch["labels"] for batch in batches])
    ids = torch.cat([batch["input_ids"] for batch in batches])
    special = torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    chosen = labels != -100
    assert not chosen[:, special].any()
    assert torch.equal(labels[chosen], original.expand_as(labels)[chosen])
    assert torch.equal(ids[~chosen], original.expand_as(ids)[~chosen])
    assert abs(chosen[:, ~special].float().mean() - 0.3) < 0.02
    assert abs((ids[chosen] == tokenizer.mask_token_id).float().mean() - 0.8) < 0.03
    torch.manual_seed(0)
    assert torch.equal(collate(features)["input_ids"][0], ids[0])  # the trainer's seed decides


def test_bad_features(tokenizer: Any) -> None:
    collate = DataCollatorWithPacking(tokenizer)
    with pytest.raises(InputError, match="a sequence is empty"):
        collate([{"input_ids": []}])
    with pytest.raises(InputError, match="expected one per token"):
        collate([{"input_ids": [5, 6], "labels": [1]}])
    with pytest.raises(InputError, match="labels: got 1, expected a list"):
        collate([{"input_ids": [5, 6], "labels": 1}])
    with pytest.raises(InputError, match="mlm_probability: got 0"):
        DataCollatorWithPacking(tokenizer, mlm_probability=0)
    with pytest.raises(InputError, match="tokenizer: no cls token"):
        DataCollatorWithPacking(object(), mlm_probability=0.3)


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMultipleChoice"])
def test_models_that_answer_once_a_row(
    make: Make, tokenizer: Any, features: Any, kind: str
) -> None:
    batch = DataCollatorWithPacking(tokenizer)(features[:3])
    with pytest.raises(InputError, match="one result per row"):
        accelerate(make(kind))(**batch)


def test_bad_packed_batches(make: Make) -> None:
    model = accelerate(make("Model"))
    ids = torch.tensor([[5, 6, 7, 8]])
    for borders in ([0, 3], [1, 4], [0, 3, 2, 4]):
        with pytest.raises(InputError, match="rise from 0 to 4"):
            model(ids, cu_seq_lens_q=torch.tensor(borders))
    with pytest.raises(InputError, match="expected one row"):
        model(ids.view(2, 2), cu_seq_lens_q=torch.tensor([0, 4]))
    with pytest.raises(InputError, match="expected one row"):
        model(ids, cu_seq_lens_q=torch.tensor([], dtype=torch.int32))
    with pytest.raises(InputError, match="output_attentions"):
        model(ids, cu_seq_lens_q=torch.tensor([0, 4]), output_attentions=True)


class Encoded(Dataset[dict[str, list[int]]]):
    def __init__(self, features: list[dict[str, list[int]]]) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.features[index]


def trained(
    transformers: Any, model: Any, features: Any, collate: Any, folder: Path, **changes: Any
) -> list[float]:
    """The losses of six steps, two batches each, by transformers' trainer; and an evaluation."""
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        **{
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "max_steps": 6,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "report_to": [],
            "disable_tqdm": True,
            "save_strategy": "no",
            "use_cpu": True,
            **changes,
        },
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Encoded(features), data_collator=collate
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return [*losses, trainer.evaluate(Encoded(features[:4]))["eval_loss"]]


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_trainer_packs(
    transformers: Any, make: Make, tokenizer: Any, features: Any, tmp_path: Path
) -> None:
    """Equal losses, step by step: padded by transformers, padded and packed on our kernels."""
    collate = DataCollatorWithPacking(tokenizer)

    def run(model: Any, collator: Any) -> list[float]:
        return trained(transformers, model, features, collator, tmp_path)

    theirs = run(make("ForMaskedLM"), padded)
    assert theirs[0] - theirs[-2] > 0.3  # it learns
    assert run(accelerate(make("ForMaskedLM")), padded) == pytest.approx(theirs, abs=2e-3)
    assert run(accelerate(make("ForMaskedLM")), collate) == pytest.approx(theirs, abs=2e-3)
    mixing = run(make("ForMaskedLM"), collate)  # without `accelerate` documents would mix
    assert mixing[1:] != pytest.approx(theirs[1:], abs=2e-3)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_trainer_masks_and_saves(
    transformers: Any, make: Make, tokenizer: Any, features: Any, tmp_path: Path
) -> None:
    model = accelerate(make("ForMaskedLM"))
    collate = DataCollatorWithPacking(tokenizer, mlm_probability=0.3)
    plain = [{"input_ids": feature["input_ids"]} for feature in features]
    trained(transformers, model, plain, collate, tmp_path, save_strategy="steps", save_steps=6)
    saved = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "checkpoint-6")
    assert type(saved).__name__ == "ModernBertForMaskedLM"
    for name, value in model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value)

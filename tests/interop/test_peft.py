"""LoRA of PEFT in accelerated models: the same outputs, gradients, merged weights and files."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.interop.conftest import Make
from torch import Tensor

import modernbert

pytest.importorskip("peft")
import peft

TARGETS = {
    "attention": ["Wqkv", "attn.Wo"],
    "all products": ["Wqkv", "attn.Wo", "Wi", "mlp.Wo"],
}


def adapted(model: Any, targets: list[str], **options: Any) -> Any:
    """The model with adapters whose effect is not zero."""
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, task_type="SEQ_CLS", **options
    )
    torch.manual_seed(1)
    tuned = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return tuned


def batch_of(lengths: tuple[int, ...] = (5, 40, 17)) -> dict[str, Tensor]:
    """Padded sequences of random tokens, with labels."""
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 300, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 2, 1])}


def outcome(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits in evaluation, and the gradients of all that is trained."""
    with torch.no_grad():
        logits = model.eval()(**batch_of()).logits
    model.train().zero_grad()
    model(**batch_of()).loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.eval()
    return logits, gradients


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("targets", TARGETS)
def test_an_accelerated_model_with_adapters_computes_the_same(
    make: Make, head_size: int, targets: str, dora: bool
) -> None:
    model = adapted(
        make("ForSequenceClassification", head_size=head_size), TARGETS[targets], use_dora=dora
    )
    logits, gradients = outcome(model)
    assert modernbert.accelerate(model) is model
    ours, our_gradients = outcome(model)
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)
    assert our_gradients.keys() == gradients.keys() and any("lora_A" in n for n in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, atol=1e-5, rtol=1e-4)


# PEFT 0.18 asks the hub for the config of the model, whose name here is no hub's.
@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_adapters_may_come_after_and_go_again(make: Make, head_size: int, tmp_path: Path) -> None:
    """Each state of the adapters has its effect, though the weights were packed in between."""
    plain = make("ForSequenceClassification", head_size=head_size)
    expected = adapted(
        make("ForSequenceClassification", head_size=head_size), TARGETS["all products"]
    )
    with torch.no_grad():
        without, with_them = plain(**batch_of()).logits, expected(**batch_of()).logits
        model = modernbert.accelerate(plain)
        torch.testing.assert_close(model(**batch_of()).logits, without, atol=1e-5, rtol=1e-5)
        tuned = adapted(model, TARGETS["all products"])
        assert not torch.allclose(without, with_them, atol=1e-2)

        def logits_are(wanted: Tensor) -> None:
            torch.testing.assert_close(tuned(**batch_of()).logits, wanted, atol=2e-5, rtol=1e-4)

        logits_are(with_them)
        with tuned.disable_adapter():
            logits_are(without)
        logits_are(with_them)
        tuned.merge_adapter()
        logits_are(with_them)
        tuned.unmerge_adapter()
        tuned.save_pretrained(tmp_path / "adapter")
        again = peft.PeftModel.from_pretrained(
            modernbert.accelerate(make("ForSequenceClassification", head_size=head_size)),
            tmp_path / "adapter",
        )
        torch.testing.assert_close(again(**batch_of()).logits, with_them, atol=2e-5, rtol=1e-4)
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(merged(**batch_of()).logits, with_them, atol=2e-5, rtol=1e-4)


def test_a_folder_goes_to_peft_and_comes_back(
    make: Make, transformers: ModuleType, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """A classifier of this package gets adapters in transformers, and is merged and opened here."""
    from modernbert.tokenizer.tokenizer import Tokenizer

    make("ForSequenceClassification").save_pretrained(tmp_path / "theirs")
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    tokenizer.save_pretrained(tmp_path / "theirs")
    ours = modernbert.SequenceClassifier.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")

    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    tuned = adapted(modernbert.accelerate(theirs), TARGETS["all products"])
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        tuned.train()(**batch_of()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(tmp_path / "adapter")
    merged = modernbert.restore(tuned.eval().merge_and_unload())
    merged.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")

    texts = ["the square of number 3", "not less."]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")(
        texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = merged(**inputs).logits.softmax(-1)
    back = modernbert.Classifier.from_pretrained(tmp_path / "merged", precision="float32")
    for scores, row in zip(back(texts, top_k=None), expected, strict=True):
        names = {label.label: label.score for label in scores}
        found = torch.tensor([names[f"LABEL_{number}"] for number in range(3)])
        torch.testing.assert_close(found, row, atol=1e-5, rtol=1e-4)
    for folder in (tmp_path / "adapter", tmp_path / "merged"):
        (tmp_path / "adapter" / "adapter_config.json").replace(folder / "adapter_config.json")
        with pytest.raises(modernbert.ModernBertError, match=r"adapters of PEFT.*merge_and_unload"):
            modernbert.Classifier.from_pretrained(folder)

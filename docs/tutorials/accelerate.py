# %% [markdown]
# # Make a transformers model fast, and train it with LoRA
#
# `modernbert.accelerate` makes a model of transformers compute without padding, in place. You measure it, then train
# the same model with LoRA adapters of PEFT, and see that losses and gradients are those of transformers.

# %%
import os
import time

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import modernbert

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

tokenizer = AutoTokenizer.from_pretrained(start)
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(
    start, num_labels=2, dtype=torch.float32
).eval()
texts = [f"{'A fine' if i % 2 else 'A dull'} film" + ", I thought" * (i % 40) for i in range(32)]
batch = tokenizer(texts, padding=True, return_tensors="pt")
print(
    "padded to",
    tuple(batch["input_ids"].shape),
    "with",
    int(batch["attention_mask"].sum()),
    "tokens",
)


# %%
def seconds_of(model: torch.nn.Module) -> float:
    """The shortest of several calls, in seconds of the processor."""
    times = []
    with torch.no_grad():
        for _ in range(2 if small else 10):
            begun = time.process_time()
            model(**batch)
            times.append(time.process_time() - begun)
    return min(times)


with torch.no_grad():
    expected = model(**batch).logits
before = seconds_of(model)
modernbert.accelerate(model)
with torch.no_grad():
    difference = (model(**batch).logits - expected).abs().max().item()
after = seconds_of(model)
print(f"{before / after:.1f} times as fast; the logits differ by {difference:.0e} at most")

# %% [markdown]
# ## LoRA
#
# PEFT puts its adapters beside the matrices of attention (`Wqkv`, `Wo`). An accelerated model honours them: the
# modules of the model compute the products, and attention is ours.

# %%
from peft import LoraConfig, get_peft_model

adapters = LoraConfig(
    task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["Wqkv", "Wo"]
)
tuned = get_peft_model(model, adapters)
tuned.print_trainable_parameters()
labels = torch.tensor([i % 2 for i in range(len(texts))])


def gradients() -> dict[str, torch.Tensor]:
    """Those of one step, by the names of the parameters."""
    tuned.zero_grad()
    tuned(**batch, labels=labels).loss.backward()
    return {name: p.grad.clone() for name, p in tuned.named_parameters() if p.grad is not None}


ours = gradients()
modernbert.restore(tuned)
theirs = gradients()
modernbert.accelerate(tuned)
furthest = max((ours[name] - theirs[name]).abs().max().item() for name in theirs)
print(f"{len(ours)} gradients, which differ by {furthest:.0e} at most")

# %%
optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), lr=5e-3)
tuned.train()
losses = []
for _ in range(3 if small else 30):
    optimizer.zero_grad()
    loss = tuned(**batch, labels=labels).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %% [markdown]
# The adapters are saved as ever, with `tuned.save_pretrained(folder)`.

# %%
print(
    f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps; "
    f"inference is {before / after:.1f} times as fast"
)

# %% [markdown]
# # Plan the paper's recipe on eight GPUs
#
# Before you rent anything, ask what a pretraining takes: hours, memory, disk and cost. You plan the three phases of
# ModernBERT-base, draw them, and see the command that would run them.

# %%
import json
import subprocess
import sys


def plan(*options: str) -> dict:
    """`modernbert plan base`, as in a shell."""
    command = [sys.executable, "-m", "modernbert", "plan", "base", *options, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


h100 = plan("--gpus", "8", "--kind", "h100", "--price", "2.5")
for phase in h100["phases"]:
    memory = phase["memory_bytes"]["total"] / 1e9
    print(
        f"{phase['name']:12} {phase['tokens'] / 1e9:6,.0f} billion tokens {phase['hours']:6.1f} h"
        f" {memory:4.0f} GB of each GPU {phase['cost']:8,.0f} of money"
    )

# %% [markdown]
# Each figure has its source, which `modernbert plan` without `--json` shows: the share of the peak rate is what the
# paper's runs reached, and `--share` replaces it with what you measured. Other kinds of GPU are one option away:

# %%
kinds = {kind: plan("--gpus", "8", "--kind", kind) for kind in ("a100", "h100", "b200")}
hours = {kind: sum(phase["hours"] for phase in each["phases"]) for kind, each in kinds.items()}

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 2.4), layout="constrained")
axes = figure.add_subplot(xlabel="days on eight GPUs")
left = dict.fromkeys(kinds, 0.0)
for number, phase in enumerate(h100["phases"]):
    days = {kind: each["phases"][number]["hours"] / 24 for kind, each in kinds.items()}
    colour = ("#c8502d", "#e08e6d", "#f1c8b5")[number]
    axes.barh(
        list(days), list(days.values()), left=list(left.values()), color=colour, label=phase["name"]
    )
    left = {kind: left[kind] + days[kind] for kind in kinds}
axes.legend(frameon=False)
figure.savefig("plan.svg")

# %% [markdown]
# ## Running it
#
# On one machine with eight GPUs:
#
# ```sh
# modernbert prepare corpus shards/main --tokenizer tokenizer
# torchrun --nproc-per-node 8 -m modernbert pretrain base
# ```
#
# The run can be stopped at any moment and continued with another number of processes; it sees the same batches.

# %%
print({kind: f"{each / 24:.1f} days" for kind, each in hours.items()})

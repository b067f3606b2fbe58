# %% [markdown]
# # Serve a model, and call it with the openai client
#
# You start a server for an embedding model, ask it with OpenAI's client, and count how many texts it embeds per
# second. In a shell you would write `modernbert serve MODEL` and leave it running.

# %%
import os
import re
import subprocess
import sys
import time

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
model = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

server = subprocess.Popen(
    [sys.executable, "-m", "modernbert", "serve", f"embedder={model}", "--port", "0"],
    stderr=subprocess.PIPE,
    text=True,
)
address = None
for line in server.stderr:
    if found := re.search(r"http://127\.0\.0\.1:\d+", line):
        address = found[0]
        break
print("ready" if address else "the server did not start")

# %% [markdown]
# Only this machine can reach the address. Open it in a browser to try each route, or ask with any client:

# %%
from openai import OpenAI

client = OpenAI(base_url=f"{address}/v1", api_key="none")
answer = client.embeddings.create(
    model="embedder", input=["A cat sat.", "A dog ran.", "Taxes rose."]
)
vectors = [each.embedding for each in answer.data]
print(len(vectors), "vectors of", len(vectors[0]), "numbers")

# %% [markdown]
# ## How fast it is
#
# Texts of one request are packed without padding. Many requests at once are batched together.

# %%
texts = [
    f"This is the text number {i}, of a dozen tokens or so." for i in range(20 if small else 2000)
]
begun = time.monotonic()
client.embeddings.create(model="embedder", input=texts)
seconds = time.monotonic() - begun

# %% [markdown]
# The server finishes what is in progress when it is told to stop:

# %%
server.terminate()
print("exit code", server.wait())
server.stderr.close()
client.close()

# %%
print(f"{len(texts) / seconds:,.0f} texts per second")

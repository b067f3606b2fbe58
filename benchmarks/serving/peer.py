"""sentence-transformers behind FastAPI in the obvious form: an embedder and a reranker.

    python peer.py EMBEDDER RERANKER PORT float32

It imports nothing of this repository, so any environment with these packages runs it.
"""

import argparse

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder, SentenceTransformer


class EmbedRequest(BaseModel):
    """Texts to embed."""

    inputs: str | list[str]


class RerankRequest(BaseModel):
    """A query, and texts that may answer it."""

    query: str
    texts: list[str]


def make_app(embedder: SentenceTransformer, reranker: CrossEncoder) -> FastAPI:
    """The application; FastAPI runs these functions in threads."""
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.post("/embed")
    def embed(request: EmbedRequest) -> list[list[float]]:
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        vectors = embedder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype("float32").tolist()  # type: ignore[no-any-return]

    @app.post("/rerank")
    def rerank(request: RerankRequest) -> list[dict[str, float]]:
        pairs = [(request.query, text) for text in request.texts]
        scores = reranker.predict(pairs, show_progress_bar=False).tolist()
        ranks = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [{"index": index, "score": scores[index]} for index in ranks]

    return app


def main() -> None:
    """Serve two folders."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("embedder")
    made.add_argument("reranker")
    made.add_argument("port", type=int)
    made.add_argument("dtype", choices=("float32", "bfloat16"))
    options = made.parse_args()
    dtype = {"dtype": getattr(torch, options.dtype)}
    embedder = SentenceTransformer(options.embedder, device="cpu", model_kwargs=dtype)
    reranker = CrossEncoder(options.reranker, device="cpu", model_kwargs=dtype)
    uvicorn.run(make_app(embedder, reranker), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()

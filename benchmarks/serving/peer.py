"""A server of sentence-transformers in the obvious form: a function for each request, in a thread.

    python -m benchmarks.serving.peer MODEL PORT float32

It works as a FastAPI application with `def embed(...)` would: requests run side by side in the
threads of the framework, and each is encoded by itself.
"""

import argparse
import json

import torch
import uvicorn
from sentence_transformers import SentenceTransformer
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def make_app(model: SentenceTransformer) -> Starlette:
    """The application."""

    async def embed(request: Request) -> Response:
        inputs = json.loads(await request.body())["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        vectors = await run_in_threadpool(
            model.encode, texts, normalize_embeddings=True, show_progress_bar=False
        )
        return JSONResponse(vectors.astype("float32").tolist())

    async def health(_: Request) -> Response:
        return Response()

    return Starlette(routes=[Route("/embed", embed, methods=["POST"]), Route("/health", health)])


def main() -> None:
    """Serve a folder."""
    made = argparse.ArgumentParser(description="Serve a folder with sentence-transformers.")
    made.add_argument("model", help="folder of the model")
    made.add_argument("port", type=int)
    made.add_argument("dtype", choices=("float32", "bfloat16"))
    options = made.parse_args()
    dtype = {"dtype": getattr(torch, options.dtype)}
    model = SentenceTransformer(options.model, device="cpu", model_kwargs=dtype)
    uvicorn.run(make_app(model), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()

"""`modernbert serve`: model folders as an HTTP service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import Compile, Precision, PrecisionOption
from modernbert.cli.terminal import tell
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.serving.models import ServedModel

_LOOPBACK = "127.0.0.1"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folders of models, or ids on the hub; NAME=MODEL gives one another name.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is reachable from other machines.")
    ] = _LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MODERNBERT_API_KEY",
            help="What clients must send as Authorization: Bearer KEY.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = Precision.AUTO,
    compile: Compile = False,
    auto_truncate: Annotated[
        bool, typer.Option("--auto-truncate", help="Cut texts that are too long.")
    ] = False,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="The most tokens computed at once.", show_default="by device"),
    ] = None,
    max_inputs: Annotated[int, typer.Option(min=1, help="Texts of a request.")] = 32,
    max_request_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a request.")] = 65_536,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2_000_000,
    max_concurrent_requests: Annotated[
        int, typer.Option(min=1, help="Requests at once; further ones are refused.")
    ] = 512,
    max_wait: Annotated[
        float,
        typer.Option(min=0.001, help="Refuse when this many seconds of work wait already."),
    ] = 10.0,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Give a request up after so many seconds.")
    ] = 60.0,
) -> None:
    """Serve models over HTTP, with the routes of text-embeddings-inference and of OpenAI.

    Each folder is served as what it is: embedder, classifier, reranker, tagger or masked language
    model. A page at / lets you try the routes. The first Ctrl-C or SIGTERM finishes what is under
    way.
    """
    _require_extra()
    from modernbert.serving.server import bind, run
    from modernbert.serving.service import Service
    from modernbert.serving.settings import ServingSettings

    settings = ServingSettings(
        api_key=api_key,
        auto_truncate=auto_truncate,
        batch_tokens=batch_tokens,
        max_inputs=max_inputs,
        max_request_tokens=max_request_tokens,
        max_body_bytes=max_body_bytes,
        max_concurrent_requests=max_concurrent_requests,
        max_wait_seconds=max_wait,
        timeout_seconds=timeout,
    )
    with bind(host, port) as listener:
        service = Service([_load(model, precision, compile) for model in models], settings)
        address = f"http://{host}:{listener.getsockname()[1]}"
        run(service, listener, on_ready=lambda: tell(f"serving on {address}"))
    tell("all requests are finished; goodbye")


def _load(argument: str, precision: Precision, compile: bool) -> "ServedModel":
    from modernbert.serving.models import load

    name, separator, model = argument.partition("=")
    if not separator or Path(argument).exists():
        name, model = "", argument
    loaded = load(model, name=name or None, precision=precision.value, compile=compile)
    tell(f"{loaded.name}: {loaded.kind.replace('_', ' ')}, {loaded.dtype}")
    return loaded


def _require_extra() -> None:
    try:
        import msgspec  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'modernbert[serve]'") from None

"""`modernbert serve`: serves models over HTTP."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from modernbert.cli.inference import Compile, PrecisionOption, look_at
from modernbert.cli.options import argument, takes_settings
from modernbert.cli.terminal import counted, tell, visible
from modernbert.extras import import_extra
from modernbert.serving.settings import AddressSettings, ServingSettings

if TYPE_CHECKING:
    from modernbert.serving.models import ServedModel


@takes_settings
def serve(
    models: Annotated[
        list[str],
        argument(
            "MODEL...",
            "Folders or hub ids (ID@REVISION) of models; NAME=MODEL serves one under another name.",
        ),
    ],
    address: AddressSettings,
    settings: ServingSettings,
    precision: PrecisionOption = "auto",
    compile: Compile = False,
) -> None:
    """Serve models over HTTP.

    The routes are those of text-embeddings-inference and of OpenAI's embeddings. Each model is
    served according to its kind: embedder, classifier, reranker, tagger, masked language model and
    so on. Open the server's address in a browser to try the routes. The first Ctrl-C or SIGTERM
    lets requests in progress finish.
    """
    for package in ("msgspec", "prometheus_client", "starlette", "uvicorn"):
        import_extra(package)
    _log_visibly()
    for model in models:
        look_at(_name_and_model(model)[1])
    from modernbert.serving.server import bind, run
    from modernbert.serving.service import Service

    with bind(address.host, address.port) as listener:
        service = Service([_load(model, precision, compile) for model in models], settings)
        url = f"http://{address.host}:{listener.getsockname()[1]}"
        cut_off, is_done = run(service, listener, on_ready=lambda: tell(f"serving on {url}"))
    if cut_off:
        tell(f"{counted(cut_off, 'request')} did not finish in time and were cut off")
    else:
        tell("all requests are finished")
    if not is_done:  # a thread still computes for nobody, and would be waited for
        os._exit(0)


def _load(argument: str, precision: PrecisionOption, compile: bool) -> "ServedModel":
    from modernbert.serving.models import load

    name, model = _name_and_model(argument)
    loaded = load(model, name=name or None, precision=precision, compile=compile)
    tell(f"{loaded.name}: {loaded.kind.replace('_', ' ')}, {loaded.dtype}")
    return loaded


def _name_and_model(argument: str) -> tuple[str, str]:
    name, separator, model = argument.partition("=")
    return ("", argument) if not separator or Path(argument).exists() else (name, model)


class _VisibleFormatter(logging.Formatter):
    """Writes records of the log without control characters, as texts of clients may be in them."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _log_visibly() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])

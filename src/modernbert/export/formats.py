"""The formats that models are exported in: what each is for, its options, and who writes it.

A format is one file that writes and verifies it, and its row in `_FORMATS`. `modernbert export` has
a verb for each row, with the options of its settings. Importing this costs nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from modernbert.errors import ExportError
from modernbert.extras import is_installed
from modernbert.kinds import MODELS, ModelKind
from modernbert.settings import Doc, Settings


class Report(Protocol):
    """What a writer returns."""

    def lines(self) -> Iterator[str]:
        """Yield what there is to say, a line at a time."""

    def content(self) -> dict[str, Any]:
        """Return the report as JSON has it."""


Int8 = Annotated[bool, Doc("Also write a file with int8 weights, and measure its quality.")]
Sample = Annotated[
    Path | None,
    Doc(
        "Texts to measure quality on: JSON Lines, Parquet, or one text per line.",
        default="texts from Python's manual",
    ),
]
TextField = Annotated[
    str | None, Doc("The column of the sample's texts.", default="found by usual names")
]


@dataclass(frozen=True, kw_only=True)
class OnnxSettings(Settings):
    """Which files to write besides that in float32, and what to measure them on."""

    int8: Int8 = False
    float16: Annotated[
        bool, Doc("Also write a file in float16, for GPUs and browsers, and measure its quality.")
    ] = False
    sample: Sample = None
    text_field: TextField = None


@dataclass(frozen=True, kw_only=True)
class OpenVinoSettings(Settings):
    """Whether to write a file in int8 too, and what to measure it on."""

    int8: Int8 = False
    sample: Sample = None
    text_field: TextField = None


@dataclass(frozen=True, kw_only=True)
class GgufSettings(Settings):
    """The precision of the file, and what to measure it on."""

    precision: Annotated[
        Literal["float32", "bfloat16", "float16", "q8_0"],
        Doc("Number format to store the matrices in."),
    ] = "float16"
    sample: Sample = None
    text_field: TextField = None


@dataclass(frozen=True, kw_only=True)
class SafetensorsSettings(Settings):
    """The precision of the folder."""

    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], Doc("Number format to store the weights in.")
    ] = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format.

    Attributes:
        name: Its verb.
        about: What the verb does, for its help.
        read_by: Who reads such files.
        writer: The function that writes and verifies them, as `module:name`. It takes the model,
            the output folder and the fields of the settings, with `sample` as texts.
        settings: Its options.
        extra: The extra of pyproject.toml that it needs, if any.
        packages: The packages of that extra, each with the oldest version that does.
        kinds: The models that it can hold; all when empty.
    """

    name: str
    about: str
    read_by: str
    writer: str
    settings: type[Settings]
    extra: str | None = None
    packages: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    kinds: tuple[ModelKind, ...] = ()

    def write(self) -> Callable[..., Report]:
        """Import the function that writes it."""
        module, _, name = self.writer.partition(":")
        function: Callable[..., Report] = getattr(import_module(module), name)
        return function

    def require(self) -> None:
        """Check all packages before any work is done.

        Raises:
            ExportError: A package is missing or too old.
        """
        for name, least in self.packages.items():
            wanted = ".".join(map(str, least))
            try:
                found = version(name)
            except PackageNotFoundError:
                raise ExportError(
                    f"{name} is not installed: pip install 'modernbert[{self.extra}]'"
                ) from None
            if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
                raise ExportError(
                    f"{name}: got version {found}, expected {wanted} or later: "
                    f"pip install -U 'modernbert[{self.extra}]'"
                )

    @property
    def takes_sample(self) -> bool:
        """Whether it is measured on texts."""
        return any(each.name == "sample" for each in fields(self.settings))  # type: ignore[arg-type]

    def lines(self) -> Iterator[str]:
        """Yield what `--list` says of it."""
        yield f"{self.name}: read by {self.read_by}"
        names = ", ".join(MODELS[each].name for each in self.kinds)
        yield f"    for {names or 'every model'}"
        if self.extra is not None:
            is_there = all(map(is_installed, self.packages))
            state = "installed" if is_there else "not installed"
            yield f"    needs pip install 'modernbert[{self.extra}]' ({state})"


_FORMATS = (
    Format(
        name="onnx",
        about="Export a model to ONNX and check that it computes the same.\n\n"
        "OUT receives the model's settings and tokenizer, and onnx/model.onnx in float32 for "
        "batches of any shape. It may be the model's own folder.",
        read_by="ONNX Runtime, sentence-transformers, fastembed, text-embeddings-inference, and "
        "transformers.js (all but answers to questions)",
        writer="modernbert.export.onnx_export:export_onnx",
        settings=OnnxSettings,
        extra="export",
        packages={"onnx": (1, 20), "onnxscript": (0, 7), "onnxruntime": (1, 25)},
    ),
    Format(
        name="openvino",
        about="Export a model to OpenVINO and check that it computes the same.\n\n"
        "OUT receives the model's settings and tokenizer, and openvino/openvino_model.xml in "
        "float32 for batches of any shape. It may be the model's own folder.",
        read_by="OpenVINO, optimum-intel and sentence-transformers",
        writer="modernbert.export.openvino_export:export_openvino",
        settings=OpenVinoSettings,
        extra="openvino",
        packages={"openvino": (2026, 0), "nncf": (3, 0)},
    ),
    Format(
        name="gguf",
        about="Export a model to GGUF, in one file with its tokenizer.\n\n"
        "The file is read back. Where llama-cpp-python is installed, llama.cpp runs it, and its "
        "outputs and tokens are compared with the model's.",
        read_by="llama.cpp and what is built on it",
        writer="modernbert.export.gguf_export:export_gguf",
        settings=GgufSettings,
        extra="gguf",
        packages={"gguf": (0, 17)},
        kinds=("encoder", "embedder", "classifier", "reranker"),
    ),
    Format(
        name="safetensors",
        about="Copy a model's folder with its weights in another precision.",
        read_by="this package, transformers and every reader of safetensors",
        writer="modernbert.export.narrow_weights:export_weights",
        settings=SafetensorsSettings,
    ),
)
FORMATS = {each.name: each for each in _FORMATS}

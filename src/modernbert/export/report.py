"""What an export wrote, and how it compares with the model: shown, stored, and returned."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modernbert.export.quality import Quality

REPORT_FILE = "export.json"


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and how it compares with the model.

    Attributes:
        folder: The folder that was written.
        file: The file in it, relative to the folder.
        kind: transformers' name of the model's class.
        outputs: The names of the outputs.
        largest_difference: The largest difference from the model's own outputs, over ragged
            batches.
        opset: The version of the operators of an ONNX file.
        int8: The quality of the file with int8 weights, if one was requested.
        float16: The quality of the file in float16, if one was requested.
    """

    folder: Path
    file: Path
    kind: str
    outputs: tuple[str, ...]
    largest_difference: float
    opset: int | None = None
    int8: Quality | None = None
    float16: Quality | None = None

    def lines(self) -> Iterator[str]:
        """Yield what there is to say, a line at a time."""
        yield f"{self.kind}: {self.folder / self.file}"
        yield f"largest difference from the model on ragged batches: {self.largest_difference:.1e}"
        for name, quality in (("int8", self.int8), ("float16", self.float16)):
            if quality is not None:
                yield f"{name}: {quality.float32_megabytes} MB became {quality.megabytes} MB"
                yield (
                    f"{name}: {quality.measure} with float32 {quality.mean:.4f} on average, "
                    f"{quality.least:.4f} at least, over {quality.num_texts} texts"
                )

    def content(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {**asdict(self), "folder": str(self.folder), "file": self.file.as_posix()}

    def store(self, folder: Path, packages: Mapping[str, Any]) -> None:
        """Write the report into a folder, with the versions of the packages that made the files."""
        versions = {name: version(name) for name in ("torch", *packages)}
        content = {**self.content(), "packages": versions}
        del content["folder"]
        (folder / REPORT_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

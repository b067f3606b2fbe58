"""What hatch builds: the C kernels, and the readme of an index page.

The kernels stand beside their sources when the package is editable, in the wheel otherwise.

Without a C compiler the package is installed as pure Python; torch's kernels do the work.
`MODERNBERT_TARGET=aarch64` cross-compiles a wheel with all of its kernels, or fails.
"""

import importlib.util
import os
import platform
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

NATIVE = "modernbert/model/native"
_RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
_RELATIVE_PICTURE = re.compile(r'\b(src|srcset)="(?!\w+:)([^"]+)"')


class ReadmeHook(MetadataHookInterface):
    """Turns the links of README.md to files of the repository into addresses."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, metadata["urls"]["Repository"]),
        }


def absolute_links(text: str, repository: str) -> str:
    """A Markdown text whose relative links, also of pictures, lead into a repository."""

    def absolute(link: re.Match[str]) -> str:
        mark, shown, path = link.groups()
        return f"{mark}[{shown}]({repository}/{'raw' if mark else 'blob'}/main/{path})"

    text = _RELATIVE_PICTURE.sub(rf'\1="{repository}/raw/main/\2"', text)
    return _RELATIVE_LINK.sub(absolute, text)


class KernelsHook(BuildHookInterface[Any]):
    """Compiles every variant of the C kernels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what goes into a wheel and which machines it is for."""
        kernels = _build_module(Path(self.root))
        if version == "editable":
            self.app.display_info(str(kernels.build()))
            return
        self._folder = tempfile.TemporaryDirectory()
        report = kernels.build(Path(self._folder.name))
        self.app.display_info(str(report))
        if os.environ.get(kernels.TARGET) and (report.error or report.failures):
            raise RuntimeError(str(report))
        if report.built:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform(kernels, report.built.values())}"
            for path in report.built.values():
                build_data["force_include"][str(path)] = f"{NATIVE}/{path.name}"


def _platform(kernels: ModuleType, objects: Any) -> str:
    """`manylinux` where the objects keep to its C library, else this Linux alone."""
    architecture = os.environ.get(kernels.TARGET) or platform.machine()
    newest = max(map(kernels.needed_glibc, objects))
    if newest > kernels.NEWEST_GLIBC:
        return f"linux_{architecture}"
    return "manylinux_{}_{}_{}".format(*kernels.NEWEST_GLIBC, architecture)


def _build_module(root: Path) -> ModuleType:
    """`native/build.py` by its path: the package itself needs torch, which is not there."""
    path = root / "src" / NATIVE / "build.py"
    spec = importlib.util.spec_from_file_location("kernels_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

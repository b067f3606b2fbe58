"""Pages of a server, each whole in one answer, with headers that let it run nothing else."""

import base64
import hashlib
import re
from pathlib import Path

from starlette.responses import HTMLResponse

_FOLDER = Path(__file__).parent


def try_page() -> str:
    """Return the page on which people try the routes."""
    style, views, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "views.js", "page.js")
    )
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    return page.replace("{style}", style).replace("{script}", views + script)


def page_response(page: str) -> HTMLResponse:
    """Answer with a page that runs its own scripts and styles, named by their hashes, and no other.

    Args:
        page: The page; its scripts and styles have no attributes.
    """
    policy = (
        f"default-src 'none'; style-src {_hashes(page, 'style')}; "
        f"script-src {_hashes(page, 'script')}; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    return HTMLResponse(page, headers=headers)


def _hashes(page: str, tag: str) -> str:
    parts = re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
    digests = [hashlib.sha256(part.encode()).digest() for part in parts]
    return " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests) or "'none'"

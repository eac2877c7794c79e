"""Analysis knows causes, and no program: neither the demo nor the servers it was judged on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT

# Servers, their frameworks, and what the demo and the applications in the tests call their own.
NAMES = (
    r"gunicorn|uvicorn|redis|nginx|hypercorn|uwsgi|granian|starlette|fastapi|flask|django|celery",
    r"vllm|triton|torchrun|memcached|postgres|mysql",
    r"perfkit[-. _]demo|perfkit\.demo|recommend\w*|shard[-_.:]\w*|batcher|tokenise|ranker|prices?",
    r"normalise_titles|wsgi_app|asgi_app|expand_synonyms|rebuild_index|compute_ranks",
)
NAMED = re.compile(rf"(?<![a-z])(?:{'|'.join(NAMES)})(?![a-z])", re.IGNORECASE)
FILES = sorted((PACKAGE / "analysis").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_analysis_names_no_program(path: Path) -> None:
    """No name of the demo or of a server occurs: answers rest on facts, not on who is known."""
    lines = path.read_text().splitlines()

    found = {number: line for number, line in enumerate(lines, 1) if NAMED.search(line)}
    assert found == {}


def test_a_name_would_be_found() -> None:
    """A name counts inside of an identifier's parts, and a word that merely holds it does not."""
    found = [bool(NAMED.search(text)) for text in ("'Redis-server'", "is_gunicorn", "a shard, a")]

    assert found == [True, True, False]

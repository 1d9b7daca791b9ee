"""What docs/ says about the code is what the code says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def test_generated_pages_match_the_code() -> None:
    build = runpy.run_path(str(REPOSITORY / "scripts" / "build_docs.py"))
    assert build["stale_pages"]() == [], "run `make docs`"


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("*.md")) + sorted((REPOSITORY / "docs").glob("*.md")), ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

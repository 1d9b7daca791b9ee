"""The documentation: what is generated matches the code, links lead somewhere, and names that it cites exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meloformer.midi.quality import RULES

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "build_docs.py"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def build_docs(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "build_docs.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def copy_of_the_docs(folder: Path) -> Path:
    """A checkout whose docs may be changed, and whose package is this one."""
    (folder / "scripts").mkdir()
    (folder / "docs").mkdir()
    (folder / "meloformer").symlink_to(ROOT / "meloformer")
    (folder / "scripts" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    for page in (ROOT / "docs").glob("*.md"):
        (folder / "docs" / page.name).write_bytes(page.read_bytes())
    return folder


def test_the_generated_pages_match_the_code_at_any_terminal_width() -> None:
    checked = build_docs(ROOT, "--check", COLUMNS="40", TERM="dumb")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_stale_page_is_named_in_one_line_and_made_again(tmp_path: Path) -> None:
    root = copy_of_the_docs(tmp_path)
    attention, settings = root / "docs" / "attention.md", root / "docs" / "settings.md"
    wanted = attention.read_text(encoding="utf-8")
    attention.write_text(wanted.replace("\nS1 #", "\nS1 ."), encoding="utf-8")
    settings.unlink()
    checked = build_docs(root, "--check")
    assert checked.returncode == 1
    assert checked.stderr.count("\n") == 1
    assert "attention.md" in checked.stderr
    assert "settings.md" in checked.stderr
    assert "commands.md" not in checked.stderr
    assert build_docs(root).returncode == 0
    assert attention.read_text(encoding="utf-8") == wanted
    assert settings.read_text(encoding="utf-8") == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def anchors_of(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(path), f"{page.name} links to {target}"


def test_every_reason_to_reject_a_file_is_explained() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "meloformer").rglob("*.py")]
    named = r'(?:RejectError\(\s*|Reject\([\w.]+, |broken = |reason, message = )"([a-z-]+)"'
    reasons = {reason for source in sources for reason in re.findall(named, source)} | set(RULES)
    assert {"not-midi", "unsupported-meter", "crashed", "no-notes", "duplicate", "too-short"} <= reasons
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    explained = {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
    assert reasons == explained

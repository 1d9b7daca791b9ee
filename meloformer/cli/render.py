"""``meloformer render``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meloformer.cli import console, live, options
from meloformer.files import make_folder

if TYPE_CHECKING:
    from meloformer.midi.sources import Source
    from meloformer.settings import Settings


@console.reports_errors
def render_command(
    sources: options.Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is made.")] = Path("rendered"),
    html: options.Html = None,
    audio: options.Audio = None,
    soundfont: options.SoundFont = None,
    port: options.Port = None,
    list_ports: options.ListPorts = False,  # noqa: ARG001 (its callback does it)
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw pieces as piano rolls; with --html as pages that play, with --audio as sound; with --port play them.

    Of several files, those that cannot be read are passed over and named.
    """
    from meloformer.errors import InputError, RejectError
    from meloformer.midi.sources import find_sources
    from meloformer.render.render import check_wishes
    from meloformer.settings_file import load_settings

    given = {"render.html": html, "render.audio": audio, "render.soundfont": soundfont, "render.port": port}
    settings = load_settings(config, overrides, given)
    check_wishes(settings.render)
    found = find_sources(sources)
    make_folder(out)
    records: list[dict[str, Any]] = []
    with console.progress("pieces", quiet=quiet or settings.render.port is not None) as bar:
        for done, (source, name) in enumerate(zip(found, names_of(found), strict=True), start=1):
            try:
                records.append({"file": source.name, **_render(source, out / name, settings, quiet=quiet)})
            except RejectError as error:
                if len(found) == 1:
                    tune = "" if source.tune is None else f"#{source.tune}"
                    raise RejectError(error.reason, f"{source.place}{tune}: {error.message}") from None
                records.append({"file": source.name, "reject": error.reason})
                console.say(f"passed over {source.name}: {error}", quiet=quiet)
            bar(done, len(found))
    if as_json:
        console.json_result({"out": str(out), "pieces": records})
    else:
        console.table(f"in {out}", ("file", "bars", "notes", "made"), [_row(record) for record in records])
    if all("reject" in record for record in records):
        raise InputError(f"none of {len(records)} files could be read", "what is wrong with each is said above")


def _render(source: Source, beside: Path, settings: Settings, *, quiet: bool) -> dict[str, Any]:
    """Render one file, and play it where there is a port; what was made, and what the piece is.

    Raises:
        RejectError: It is no music that can be read.
    """
    from meloformer.midi.harmony import with_chords
    from meloformer.midi.sources import score_of
    from meloformer.render.render import render

    read = score_of(source, max_bytes=settings.filter.max_file_bytes, sustain=settings.tokens.sustain)
    console.say_recovered(source.name, read.recovered, quiet=quiet)
    score = with_chords(read)
    assert score.chords is not None
    make_folder(beside.parent)
    made = render(score, beside, settings.render, title=beside.name)
    facts = {"bars": len(score.chords), "notes": score.num_notes, "recovered": read.recovered, **made}
    if settings.render.port is not None:
        played = live.play_score(score, beside.name, settings, quiet=quiet)
        live.tell(played, quiet=quiet)
        facts |= played
    return facts


def names_of(sources: list[Source]) -> list[str]:
    """A path below the output folder for what comes of every source, without the suffix.

    ``songs/a.mid`` becomes ``songs/a``, or ``songs/a.mid`` where there is an ``a.abc`` too; tune 3 of a book
    ``book-3``.
    """
    full = [source.name.removeprefix("corpus:").replace("#", "-") for source in sources]
    stems = [_stem(source, name) for source, name in zip(sources, full, strict=True)]
    count = Counter(stem.lower() for stem in stems)
    names = [stem if count[stem.lower()] == 1 else name for stem, name in zip(stems, full, strict=True)]
    return [str(Path(*(part for part in Path(name).parts if part not in ("/", "..")))) for name in names]


def _stem(source: Source, name: str) -> str:
    if source.tune is None:
        return name[: -len(Path(name).suffix)] if Path(name).suffix else name
    book, _, tune = name.rpartition("-")
    return f"{book.removesuffix('.abc')}-{tune}"


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    if "reject" in record:
        return record["file"], "", "", record["reject"]
    made = [Path(record[kind]).suffix for kind in ("picture", "page", "sound") if kind in record]
    return record["file"], record["bars"], record["notes"], " ".join(made)

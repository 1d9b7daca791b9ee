"""Everything that stands beside a piece: its piano roll, and where they are wished for, a page and a sound."""

from __future__ import annotations

from pathlib import Path

from meloformer.midi.harmony import with_chords
from meloformer.midi.score import Score
from meloformer.render.audio import require_synthesizer, write_wav
from meloformer.render.page import write_page
from meloformer.render.piano_roll import piano_roll
from meloformer.render.ports import matching_name, output_names
from meloformer.render.soundfont import find_soundfont
from meloformer.settings import RenderSettings


def check_wishes(settings: RenderSettings) -> None:
    """See before the work that what is wished for can be made.

    Raises:
        InputError: Sound is wished for, and there is no SoundFont; or there is no such MIDI port.
        MeloFormerError: The packages for what is wished for are not installed.
    """
    if settings.audio:
        require_synthesizer()
        find_soundfont(settings.soundfont)
    if settings.port is not None:
        matching_name(settings.port, output_names())


def render(score: Score, beside: Path, settings: RenderSettings, *, title: str) -> dict[str, str]:
    """Write what is wished for.

    Args:
        score: The piece; where it has no chords, they are analysed.
        beside: Path without a suffix, such as ``out/song``; suffixes are put behind it.
        settings: What is made besides the piano roll.
        title: Of the picture and the page.
    Returns:
        What was made -> its path.
    Raises:
        OutputError: A file cannot be written.
        InputError: Sound is wished for, and there is no SoundFont that can be read.
        MeloFormerError: Sound is wished for, and the packages for it are not installed.
        RejectError: The score has a meter whose bars are no whole number of ticks, or too many bars.
    """
    score = with_chords(score)
    made = {"picture": beside.with_name(f"{beside.name}.png")}
    piano_roll(score, made["picture"], title=title)
    if settings.html:
        made["page"] = beside.with_name(f"{beside.name}.html")
        write_page(score, made["page"], title=title)
    if settings.audio:
        made["sound"] = beside.with_name(f"{beside.name}.wav")
        write_wav(score, made["sound"], find_soundfont(settings.soundfont))
    return {kind: str(path) for kind, path in made.items()}

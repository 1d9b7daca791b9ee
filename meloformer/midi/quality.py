"""Which pieces are worth learning from: facts about a piece, and one rule per function."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from meloformer.midi.bars import grid_of, seconds_of
from meloformer.midi.score import DRUMS, Score
from meloformer.settings import FilterSettings

BEAT_DIVISIONS = (1, 2, 3, 4, 6, 8, 12)
"""Parts of a quarter note on which onsets may cluster: beats, eighths, triplets, sixteenths and finer."""


@dataclass(frozen=True)
class PieceStatistics:
    """Facts about one piece."""

    notes: int
    bars: int
    seconds: float
    tracks: int
    instruments: int
    pitches: int
    """Different pitches, those of drums included."""
    tempo_bpm: float
    """Quarters a minute over the whole piece."""
    repeated: float
    """Share of the notes that the commonest pitch of one instrument has."""
    empty_bars: float
    """Share of the bars in which nothing sounds."""
    on_beat: float
    """0-1, see :func:`beat_strength`."""
    cross_bar: float
    """Share of the pitched notes that sound across a bar line."""


def statistics(score: Score, quantised: Score) -> PieceStatistics:
    """Facts about a piece.

    Args:
        score: As it was read.
        quantised: The same piece on the grid.
    """
    num_notes, melodic = quantised.num_notes, quantised.program != DRUMS
    crosses, empty = _across_bars(quantised)
    seconds = float(seconds_of(score, np.array([score.end_ticks]))[0])
    quarters = score.end_ticks / score.ticks_per_quarter
    kinds = np.bincount(quantised.program * 128 + quantised.pitch, minlength=1)
    return PieceStatistics(
        notes=num_notes,
        bars=len(empty),
        seconds=round(seconds, 3),
        tracks=score.num_tracks,
        instruments=int(np.count_nonzero(np.bincount(quantised.program))),
        pitches=int(np.count_nonzero(np.bincount(quantised.pitch))),
        tempo_bpm=round(60 * quarters / seconds, 3) if seconds > 0 else 0.0,
        repeated=_share(int(kinds.max()), num_notes),
        empty_bars=_share(np.count_nonzero(empty), len(empty)),
        on_beat=round(beat_strength(score), 4),
        cross_bar=_share(np.count_nonzero(crosses & melodic), np.count_nonzero(melodic)),
    )


def _share(part: int | np.integer, whole: int | np.integer) -> float:
    """A share to four places; of nothing it is 0."""
    return round(int(part) / max(int(whole), 1), 4)


def _across_bars(quantised: Score) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool which notes sound across a bar line, and (B,) bool in which bars nothing sounds."""
    start = grid_of(quantised).start_ticks
    first_note = np.searchsorted(quantised.onset_ticks, start)
    notes_in_bar = np.append(first_note[1:], quantised.num_notes) - first_note
    bar_lines = np.append(start[1:], np.iinfo(np.int64).max)  # a note that rings past the last bar crosses none there
    end = quantised.onset_ticks + quantised.duration_ticks
    crosses = end > np.repeat(bar_lines, notes_in_bar)
    held_from = np.searchsorted(bar_lines, quantised.onset_ticks[crosses], side="right") + 1
    held_until = np.searchsorted(start, end[crosses])
    num_bars = len(start)
    held = np.bincount(held_from, minlength=num_bars + 1) - np.bincount(held_until, minlength=num_bars + 1)
    return crosses, (notes_in_bar == 0) & (np.cumsum(held)[:num_bars] == 0)


def beat_strength(score: Score) -> float:
    """How strongly onsets keep to the beat, 0 to 1.

    The phase of every different onset within 1/k of a quarter is a point on a circle; the length of their mean is 1
    where all agree and near 0 where they lie anywhere. The strongest k of ``BEAT_DIVISIONS`` counts, so swing, triplets
    and humanised timing pass, and a free performance over a metronome that it never heard does not.

    Measured on 742 real files: free piano performances reach 0.20 at the most (median 0.04); of 686 others three lie
    below that, and the next is at 0.33.
    """
    if not score.num_notes:
        return 0.0
    onsets = score.onset_ticks[np.append(True, score.onset_ticks[1:] != score.onset_ticks[:-1])]
    onsets_at = np.bincount(onsets % score.ticks_per_quarter)
    places = np.flatnonzero(onsets_at)  # few in music on a grid, and never more than a quarter has ticks
    circle = _circle(score.ticks_per_quarter)[np.outer(BEAT_DIVISIONS, places) % score.ticks_per_quarter]
    return float(np.abs(circle @ onsets_at[places]).max() / len(onsets))


@lru_cache(maxsize=16)
def _circle(parts: int) -> np.ndarray:
    """(parts,) points at equal distances on the unit circle, as complex numbers."""
    return np.exp(2j * np.pi / parts * np.arange(parts))


def content_key(quantised: Score) -> str:
    """A hash of the notes alone, as 32 hexadecimal digits.

    Copies of a piece have one key when they differ in transposition, tempo, velocities, meter, silence in front or
    resolution. A copy in notes of double length at double tempo has another: durations past a half note are rounded to
    coarser steps, so halving them does not lead back to the same notes, and a key without durations would merge pieces
    that differ.
    """
    if not quantised.num_notes:
        return hashlib.sha256(b"").hexdigest()[:32]
    melodic = quantised.program != DRUMS
    reference = int(quantised.pitch[melodic].min()) if melodic.any() else 0
    notes = np.stack(
        [
            quantised.onset_ticks - quantised.onset_ticks[0],
            quantised.duration_ticks,
            quantised.program,
            np.where(melodic, quantised.pitch - reference, quantised.pitch),
        ],
        axis=1,
    )
    return hashlib.sha256(notes.astype("<i8", copy=False).data).hexdigest()[:32]


Rule = Callable[[PieceStatistics, FilterSettings], str | None]
"""A message where the piece breaks the rule, else ``None``."""


def too_few_notes(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """Fewer notes than ``min_notes``."""
    return f"{piece.notes} notes, fewer than {settings.min_notes}" if piece.notes < settings.min_notes else None


def too_few_pitches(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """Fewer different pitches than ``min_pitches``."""
    few = piece.pitches < settings.min_pitches
    return f"{piece.pitches} different pitches, fewer than {settings.min_pitches}" if few else None


def too_short(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """Fewer bars than ``min_bars``."""
    return f"{piece.bars} bars, fewer than {settings.min_bars}" if piece.bars < settings.min_bars else None


def too_long(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """More bars than ``max_bars``."""
    return f"{piece.bars} bars, more than {settings.max_bars}" if piece.bars > settings.max_bars else None


def one_note_repeated(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """One pitch of one instrument is most of the piece."""
    share = f"{piece.repeated:.0%} of the notes are one pitch, more than {settings.max_repeated:.0%}"
    return share if piece.repeated > settings.max_repeated else None


def mostly_silence(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """Most bars are empty."""
    share = f"{piece.empty_bars:.0%} of the bars are empty, more than {settings.max_empty_bars:.0%}"
    return share if piece.empty_bars > settings.max_empty_bars else None


def too_many_tracks(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """More tracks with notes than ``max_tracks``."""
    return f"{piece.tracks} tracks, more than {settings.max_tracks}" if piece.tracks > settings.max_tracks else None


def absurd_tempo(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """The mean tempo is outside what music has."""
    if settings.min_tempo_bpm <= piece.tempo_bpm <= settings.max_tempo_bpm:
        return None
    return f"{piece.tempo_bpm:.1f} bpm, outside {settings.min_tempo_bpm:g}-{settings.max_tempo_bpm:g}"


def not_on_the_beat(piece: PieceStatistics, settings: FilterSettings) -> str | None:
    """Onsets do not keep to any division of the beat."""
    weak = piece.on_beat < settings.min_on_beat
    return f"beat strength {piece.on_beat:.2f}, below {settings.min_on_beat:g}" if weak else None


RULES: dict[str, Rule] = {
    "too-few-notes": too_few_notes,
    "too-few-pitches": too_few_pitches,
    "too-short": too_short,
    "too-long": too_long,
    "one-note-repeated": one_note_repeated,
    "mostly-silence": mostly_silence,
    "too-many-tracks": too_many_tracks,
    "absurd-tempo": absurd_tempo,
    "not-on-the-beat": not_on_the_beat,
}
"""Reason -> rule, in the order in which they are asked."""


def reject_reason(piece: PieceStatistics, settings: FilterSettings) -> tuple[str, str] | None:
    """Reason and message of the first rule that the piece breaks, or ``None``."""
    for reason, rule in RULES.items():
        message = rule(piece, settings)
        if message is not None:
            return reason, message
    return None

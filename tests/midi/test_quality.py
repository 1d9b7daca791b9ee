"""What makes a piece worth learning from: facts, every rule on both sides of its limit, and copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meloformer.bench.music import practice_piece
from meloformer.midi.quality import RULES, PieceStatistics, beat_strength, content_key, reject_reason, statistics
from meloformer.midi.read import read_midi
from meloformer.midi.score import DRUMS, MAP_COLUMNS, Score, make_score
from meloformer.settings import FilterSettings
from meloformer.tokens.quantise import quantise
from tests.strategies import scores

GOOD = PieceStatistics(
    notes=500, bars=32, seconds=60, tracks=4, instruments=4, pitches=30, tempo_bpm=120,
    repeated=0.1, empty_bars=0, on_beat=0.9, cross_bar=0.1,
)  # fmt: skip
LIMITS = FilterSettings()


@pytest.mark.parametrize(
    ("reason", "field", "passes", "breaks"),
    [
        ("too-few-notes", "notes", LIMITS.min_notes, LIMITS.min_notes - 1),
        ("too-few-pitches", "pitches", LIMITS.min_pitches, LIMITS.min_pitches - 1),
        ("too-short", "bars", LIMITS.min_bars, LIMITS.min_bars - 1),
        ("too-long", "bars", LIMITS.max_bars, LIMITS.max_bars + 1),
        ("one-note-repeated", "repeated", LIMITS.max_repeated, LIMITS.max_repeated + 1e-4),
        ("mostly-silence", "empty_bars", LIMITS.max_empty_bars, LIMITS.max_empty_bars + 1e-4),
        ("too-many-tracks", "tracks", LIMITS.max_tracks, LIMITS.max_tracks + 1),
        ("absurd-tempo", "tempo_bpm", LIMITS.min_tempo_bpm, LIMITS.min_tempo_bpm - 1e-3),
        ("absurd-tempo", "tempo_bpm", LIMITS.max_tempo_bpm, LIMITS.max_tempo_bpm + 1e-3),
        ("not-on-the-beat", "on_beat", LIMITS.min_on_beat, LIMITS.min_on_beat - 1e-4),
    ],
)
def test_a_rule_passes_its_limit_and_breaks_past_it(reason: str, field: str, passes: float, breaks: float) -> None:
    assert reject_reason(replace(GOOD, **{field: passes}), LIMITS) is None
    broken = reject_reason(replace(GOOD, **{field: breaks}), LIMITS)
    assert broken is not None
    assert broken[0] == reason


def test_of_several_broken_rules_the_first_in_the_table_is_named() -> None:
    worst = replace(GOOD, notes=1, pitches=1, bars=1, repeated=1, tempo_bpm=1, on_beat=0)
    broken = reject_reason(worst, LIMITS)
    assert broken is not None
    assert broken[0] == next(iter(RULES))


def test_the_facts_about_a_small_piece_are_right() -> None:
    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=[0, 36, 144, 145],
        duration_ticks=[12, 24, 12, 1],  # the second sounds past the first bar line
        pitch=[60, 60, 64, 36],
        velocity=[80] * 4,
        program=[0, 0, 40, DRUMS],
        tempos=[(0, 500_000), (96, 1_000_000)],
        end_ticks=192,
        num_tracks=3,
    )
    facts = statistics(score, quantise(score))
    assert (facts.notes, facts.bars, facts.tracks, facts.instruments, facts.pitches) == (4, 4, 3, 3, 3)
    assert facts.seconds == 8 * 0.5 + 8 * 1.0
    assert facts.tempo_bpm == 80
    assert facts.repeated == 0.5
    assert facts.empty_bars == 0.25  # the third
    assert facts.cross_bar == pytest.approx(1 / 3, abs=1e-4)


def test_a_piece_without_notes_has_facts_too() -> None:
    score = make_score(ticks_per_quarter=96)
    facts = statistics(score, quantise(score))
    assert (facts.notes, facts.repeated, facts.on_beat, facts.cross_bar) == (0, 0, 0, 0)


@settings(max_examples=50)
@given(scores())
def test_every_score_has_facts_within_their_range(score: Score) -> None:
    facts = statistics(score, quantise(score))
    assert all(0 <= share <= 1 for share in (facts.repeated, facts.empty_bars, facts.on_beat, facts.cross_bar))
    assert facts.bars > 0
    assert facts.seconds >= 0  # rounded to milliseconds


def played(onsets: np.ndarray, ticks_per_quarter: int = 480) -> Score:
    """A score of notes at the onsets."""
    same = np.full(len(onsets), 60)
    return make_score(
        ticks_per_quarter=ticks_per_quarter,
        onset_ticks=onsets,
        duration_ticks=same,
        pitch=same,
        velocity=same,
        program=np.zeros_like(same),
    )


def test_strict_and_swung_and_humanised_rhythm_keeps_to_the_beat_and_free_rhythm_does_not() -> None:
    rng = np.random.default_rng(0)
    beats = np.arange(200) * 480
    assert beat_strength(practice_piece(0)) == pytest.approx(1)
    assert beat_strength(played(beats)) == pytest.approx(1)
    assert beat_strength(played(beats + 100)) == pytest.approx(1)  # a silence in front changes nothing
    assert beat_strength(played(np.concatenate([beats, beats + 320]))) == pytest.approx(1)  # swing
    assert beat_strength(played(np.abs(beats + rng.integers(-20, 21, 200)))) > 0.9
    assert beat_strength(played(rng.integers(0, 200 * 480, 2000))) < LIMITS.min_on_beat
    assert beat_strength(played(np.zeros(0, dtype=np.int64))) == 0


def test_free_performances_are_not_on_the_beat_and_other_real_files_are(dev_files: list[Path]) -> None:
    free = [path for path in dev_files if path.parent.name == "giantmidi"]
    others = [path for path in dev_files if path.parent.name != "giantmidi"]
    assert len(free) == 56
    assert max(beat_strength(read_midi(path)) for path in free[::4]) < LIMITS.min_on_beat
    strengths = [beat_strength(read_midi(path)) for path in others[::10]]
    assert np.mean(np.array(strengths) < LIMITS.min_on_beat) < 0.02


@settings(max_examples=50)
@given(scores(), st.integers(-40, 40), st.integers(1, 127), st.integers(200_000, 1_600_000))
def test_a_copy_in_another_key_tempo_and_velocity_has_the_same_content_key(
    score: Score, semitones: int, velocity: int, tempo_us: int
) -> None:
    melodic = score.program != DRUMS
    pitch = np.where(melodic, score.pitch + semitones, score.pitch)
    assume(((pitch >= 0) & (pitch < 128)).all())
    copy = score.with_changes(
        pitch=pitch,
        velocity=np.full_like(score.velocity, velocity),
        tempo_ticks=np.zeros(1, dtype=np.int64),
        tempo_us=np.array([tempo_us]),
    )
    assert content_key(quantise(copy)) == content_key(quantise(score))


@settings(max_examples=50)
@given(scores(on_grid=True), st.integers(1, 8))
def test_silence_in_front_does_not_change_the_content_key(score: Score, quarters: int) -> None:
    onset = score.onset_ticks + quarters * score.ticks_per_quarter
    maps = {name: getattr(score, name)[:1] for name in MAP_COLUMNS}
    here = score.with_changes(**maps)
    later = here.with_changes(onset_ticks=onset, end_ticks=score.end_ticks + quarters * score.ticks_per_quarter)
    assert content_key(quantise(later)) == content_key(quantise(here))


@settings(max_examples=50)
@given(scores(), st.sampled_from([2, 4]))
def test_the_same_notes_in_finer_ticks_have_the_same_content_key(score: Score, finer: int) -> None:
    scaled = {name: getattr(score, name) * finer for name in ("onset_ticks", "duration_ticks", "tempo_ticks")}
    copy = score.with_changes(
        ticks_per_quarter=score.ticks_per_quarter * finer,
        meter_ticks=score.meter_ticks * finer,
        end_ticks=score.end_ticks * finer,
        **scaled,
    )
    assert content_key(quantise(copy)) == content_key(quantise(score))


def test_the_same_notes_written_twice_as_long_are_another_piece() -> None:
    score = practice_piece(0, num_bars=8)
    scaled = {name: getattr(score, name) * 2 for name in ("onset_ticks", "duration_ticks")}
    copy = score.with_changes(end_ticks=score.end_ticks * 2, tempo_us=score.tempo_us // 2, **scaled)
    assert content_key(quantise(copy)) != content_key(quantise(score))


def test_other_notes_have_another_content_key() -> None:
    piece = quantise(practice_piece(0, num_bars=8))
    keys = {content_key(quantise(practice_piece(seed, num_bars=8))) for seed in range(20)}
    assert len(keys) == 20
    drums = piece.program == DRUMS
    changed = [
        piece.with_changes(pitch=piece.pitch + (np.arange(piece.num_notes) == piece.num_notes - 1)),
        piece.with_changes(pitch=np.where(drums, piece.pitch + 1, piece.pitch)),  # drums have no key to change
        piece.with_changes(program=np.where(piece.program == 0, 1, piece.program)),
        piece.with_changes(duration_ticks=piece.duration_ticks + 1),
    ]
    assert content_key(piece) not in {content_key(other) for other in changed}

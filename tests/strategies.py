"""Hypothesis strategies: scores as files bring them, and HID documents."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import TokenType, Vocabulary

RESOLUTIONS = (1, 24, 96, 120, 384, 480, 1000, 1024)
METERS = ((4, 4), (3, 4), (2, 4), (6, 8), (5, 8), (7, 8), (2, 2), (9, 8), (1, 4), (3, 16), (10, 4), (27, 8), (8, 1))
PROGRAMS = (0, 1, 24, 33, 39, 48, 52, 73, 88, 95, 96, 127, DRUMS)


@st.composite
def scores(draw: st.DrawFn, *, max_notes: int = 40, on_grid: bool = False, drums: bool = True) -> Score:
    """A score of a few bars: any resolution, meter and tempo changes on bar lines, notes anywhere or on the grid."""
    per_quarter = draw(st.sampled_from([24, 96, 120, 384, 480] if on_grid else RESOLUTIONS))
    step = max(per_quarter // 12, 1)
    meters, bar_line = [], 0
    for _ in range(draw(st.integers(1, 3))):
        numerator, denominator = draw(st.sampled_from(METERS))
        meters.append((bar_line, numerator, denominator))
        bar_line += draw(st.integers(1, 3)) * max(4 * per_quarter * numerator // denominator, 1)
    tempos = [
        (draw(st.integers(0, bar_line)) if i else 0, draw(st.integers(200_000, 1_600_000)))
        for i in range(draw(st.integers(1, 3)))
    ]
    num_notes = draw(st.integers(0, max_notes))
    unit = step if on_grid else 1
    programs = [program for program in PROGRAMS if drums or program != DRUMS]

    def column(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=num_notes, max_size=num_notes))

    return make_score(
        ticks_per_quarter=per_quarter,
        onset_ticks=np.array(column(0, max(bar_line // unit - 1, 0)), dtype=np.int64) * unit,
        duration_ticks=np.array(column(1 if on_grid else 0, 9 * per_quarter // unit), dtype=np.int64) * unit,
        pitch=column(40, 46) if draw(st.booleans()) else column(0, 127),
        velocity=column(1, 127),
        program=draw(st.lists(st.sampled_from(programs), min_size=num_notes, max_size=num_notes)),
        tempos=tempos,
        meters=meters,
    )


@st.composite
def scores_with_cut_bars(draw: st.DrawFn) -> Score:
    """Like :func:`scores`, but meters change anywhere on a sixteenth, inside bars too."""
    score = draw(scores())
    sixteenth = max(score.ticks_per_quarter // 4, 1)
    ticks = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    meters = [(0, 4, 4), *((tick * sixteenth, *draw(st.sampled_from(METERS))) for tick in ticks)]
    return make_score(
        ticks_per_quarter=score.ticks_per_quarter,
        **{name: getattr(score, name) for name in ("onset_ticks", "duration_ticks", "pitch", "velocity", "program")},
        tempos=np.stack([score.tempo_ticks, score.tempo_us], axis=1),
        meters=meters,
        end_ticks=score.end_ticks,
    )


@st.composite
def documents(draw: st.DrawFn, *, max_bars: int = 4, max_tokens: int = 120) -> np.ndarray:
    """A valid document in the full vocabulary: a random walk through the grammar that prefers to write notes."""
    vocabulary = Vocabulary.default()
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_bars = draw(st.integers(1, max_bars))
    return random_document(rng, vocabulary, num_bars=num_bars, max_tokens=max_tokens)


def random_document(
    rng: np.random.Generator, vocabulary: Vocabulary, *, num_bars: int = 4, max_tokens: int = 120
) -> np.ndarray:
    """A valid document of ``num_bars`` bars, whose types are drawn first and values then."""
    state = GrammarState(vocabulary)
    ids: list[int] = []
    while not ids or state.last != TokenType.EOS:
        allowed = np.flatnonzero(state.allowed())
        types = np.unique(vocabulary.types[allowed])
        enough = len(ids) > max_tokens
        if state.bar + 1 < num_bars:
            types = types[types != TokenType.EOS]
        elif len(types) > 1:
            types = types[types != TokenType.CHORD]
        wanted = TokenType.EOS if state.bar + 1 >= num_bars else TokenType.CHORD
        chosen = wanted if enough and wanted in types else rng.choice(types)
        token = int(rng.choice(allowed[vocabulary.types[allowed] == chosen]))
        state.advance(token)
        ids.append(token)
    return np.array(ids, dtype=np.uint16)

"""Generation obeys, whatever the weights; here they are random."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import Any

import mido
import numpy as np
import pytest
import symusic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import meloformer as mf
from meloformer.errors import GenerationError, SettingsError
from meloformer.generation.constraints import allowed_tokens, make_wishes, redirected
from meloformer.generation.generate import stream
from meloformer.generation.sampling import sample, token_probabilities
from meloformer.midi.programs import programs_of
from meloformer.midi.read import parse_midi
from meloformer.midi.score import DRUMS
from meloformer.midi.write import to_midi_bytes
from meloformer.settings import GenerationSettings
from meloformer.tokens.grammar import GrammarState, grammar_errors
from meloformer.tokens.grid import nearest_tempo
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary

SHORT = GenerationSettings(max_notes_per_bar=6, context=64, bars=3)


@pytest.fixture(scope="module")
def model() -> mf.MeloFormer:
    torch.manual_seed(1)
    return mf.MeloFormer(mf.ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16)).eval()


@settings(max_examples=25, deadline=None)
@given(
    bars=st.integers(1, 5),
    seed=st.integers(0, 1000),
    tempo=st.none() | st.floats(40, 250),
    meter=st.none() | st.sampled_from(["4/4", "3/4", "7/8", "1/16", "2/1"]),
    instruments=st.none()
    | st.lists(st.sampled_from(["drums", "bass", "piano", "#127", "violin", "pad"]), min_size=1, unique=True),
)
def test_every_wish_is_obeyed(
    model: mf.MeloFormer, bars: int, seed: int, tempo: float | None, meter: str | None, instruments: list[str] | None
) -> None:
    names = ",".join(instruments) if instruments else None
    (ids,) = mf.generate(
        model, bars=bars, seed=seed, tempo=tempo, meter=meter, instruments=names, temperature=1.5, settings=SHORT
    )
    assert grammar_errors(ids) == []
    score = mf.decode(ids)
    assert score.chords is not None
    assert len(score.chords) == bars
    if tempo is not None:
        assert nearest_tempo(score.tempo_us).tolist() == nearest_tempo(np.array([60e6 / tempo])).tolist()
    if meter is not None:
        assert [f"{n}/{d}" for n, d in zip(score.meter_numerator, score.meter_denominator, strict=True)] == [meter]
    if instruments is not None:
        used, wished = set(score.program.tolist()), [set(programs_of(name)) for name in instruments]
        assert used <= set().union(*wished)
        assert all(used & programs for programs in wished)
    bar_lines = [at for at, token_id in enumerate(ids) if Vocabulary.default().types[token_id] == TokenType.CHORD]
    for start, stop in pairwise([*bar_lines, len(ids)]):
        notes = sum(Vocabulary.default().types[ids[start:stop]] == TokenType.PITCH)
        assert notes <= SHORT.max_notes_per_bar + 6  # wished instruments may still come


def test_a_written_piece_has_exactly_its_bars_in_other_readers(model: mf.MeloFormer) -> None:
    (ids,) = mf.generate(model, bars=5, seed=3, meter="3/4", settings=SHORT)
    data = to_midi_bytes(mf.decode(ids))
    file = mido.MidiFile(file=BytesIO(data))
    assert max(sum(message.time for message in track) for track in file.tracks[:1]) == 5 * 3 * file.ticks_per_beat
    read: Any = symusic.Score.from_midi(data)
    assert len(read.markers) == 5
    assert np.array_equal(mf.encode(parse_midi(data)), ids)
    assert quantise(parse_midi(data)) == mf.decode(ids)


def test_a_piece_is_the_same_alone_and_among_others(model: mf.MeloFormer) -> None:
    together = mf.generate(model, num=3, seed=5, settings=SHORT)
    alone = mf.generate(model, num=1, seed=5, settings=SHORT)
    assert np.array_equal(together[0], alone[0])
    two = mf.generate(model, num=2, seed=5, settings=SHORT)
    assert all(np.array_equal(one, other) for one, other in zip(two, together[:2], strict=True))
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(mf.generate(model, seed=6, settings=SHORT)[0], alone[0])


def test_bars_come_one_by_one_and_make_up_the_pieces(model: mf.MeloFormer) -> None:
    chosen = SHORT.model_copy(update={"num": 3, "seed": 5})
    documents: list[list[np.ndarray]] = [[], [], []]
    for bar in stream(model, chosen):
        assert bar.number == len(documents[bar.piece])
        assert bar.is_last == (bar.number == SHORT.bars - 1)
        documents[bar.piece].append(bar.ids)
    whole = mf.generate(model, settings=chosen)
    assert all(np.array_equal(np.concatenate(bars), ids) for bars, ids in zip(documents, whole, strict=True))
    assert [len(bars) for bars in documents] == [SHORT.bars] * 3


def test_the_first_bar_comes_before_the_others_are_written(model: mf.MeloFormer) -> None:
    first = next(stream(model, SHORT.model_copy(update={"bars": 4000})))
    assert first.number == 0
    assert not first.is_last


def test_greedy_generation_does_not_depend_on_the_seed(model: mf.MeloFormer) -> None:
    first = mf.generate(model, temperature=0, seed=1, settings=SHORT)[0]
    assert np.array_equal(first, mf.generate(model, temperature=0, seed=2, settings=SHORT)[0])


def test_progress_counts_every_bar(model: mf.MeloFormer) -> None:
    seen: list[tuple[int, int]] = []
    mf.generate(model, num=2, settings=SHORT, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("wish", "error", "message"),
    [
        ({"meter": "17/1"}, GenerationError, "the meter '17/1' cannot be written"),
        ({"meter": "waltz"}, GenerationError, "cannot be written"),
        ({"instruments": "lute"}, SettingsError, "there is no instrument 'lute'.*flute"),
        ({"instruments": " , "}, GenerationError, "names none"),
        ({"tempo": 1000.0}, SettingsError, "generation.tempo"),
        ({"bars": 0}, SettingsError, "generation.bars"),
        ({"temperature": -1.0}, SettingsError, "generation.temperature"),
    ],
)
def test_impossible_wishes_are_refused(model: mf.MeloFormer, wish: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mf.generate(model, settings=SHORT, **wish)


def test_what_a_pruned_vocabulary_lacks_is_refused() -> None:
    full = Vocabulary.default()
    counts = np.ones(len(full))
    for name in ("3/4", "#D", "250"):
        counts[full.id_of(name)] = 0
    model = mf.MeloFormer(mf.ModelSettings.of_size("tiny", num_layers=1), full.pruned(counts)).eval()
    for wish in ({"meter": "3/4"}, {"instruments": "drums"}, {"tempo": 250.0}):
        with pytest.raises(GenerationError, match="vocabulary has no"):
            mf.generate(model, settings=SHORT, **wish)  # type: ignore[arg-type]
    (ids,) = mf.generate(model, settings=SHORT)
    assert grammar_errors(ids, model.vocabulary) == []
    assert DRUMS not in mf.decode(ids, model.vocabulary).program


def test_probabilities_keep_what_is_asked_for() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    everything = np.ones(4, dtype=bool)

    def kept(allowed: np.ndarray = everything, **changes: object) -> list[float]:
        options = {"temperature": 1.0, "top_k": None, "top_p": 1.0, **changes}
        return token_probabilities(logits, allowed, **options).round(6).tolist()  # type: ignore[arg-type]

    assert kept() == [0.4, 0.3, 0.2, 0.1]
    assert kept(top_k=2) == [0.571429, 0.428571, 0, 0]
    assert kept(top_p=0.69) == [0.571429, 0.428571, 0, 0]
    assert kept(top_p=0.71) == [0.444444, 0.333333, 0.222222, 0]
    assert kept(temperature=0) == [1, 0, 0, 0]
    assert kept(np.array([False, True, True, False])) == [0, 0.6, 0.4, 0]
    assert kept(temperature=0.5)[0] == pytest.approx(0.16 / 0.3, abs=1e-5)


def test_sampling_follows_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = np.array([0.0, 0.7, 0.0, 0.3])
    drawn = np.bincount([sample(probabilities, rng) for _ in range(4000)], minlength=4) / 4000
    assert drawn == pytest.approx(probabilities, abs=0.03)


def test_a_forbidden_bar_line_ends_the_last_bar_and_does_not_become_more_notes() -> None:
    vocabulary = Vocabulary.default()
    names = ["BOS", "N", "4/4", "120", "#40", "T0", "P60", "D12", "V9"]
    state = GrammarState.after(np.array([vocabulary.id_of(name) for name in names]), vocabulary)
    logits = np.full(len(vocabulary), -20.0)
    wanted = {"C:maj": 0.6, "G:maj": 0.2, "P64": 0.1, "#73": 0.06, "#41": 0.04}
    for name, probability in wanted.items():
        logits[vocabulary.id_of(name)] = np.log(probability)

    def probability_of(name: str, instruments: str, bars: int) -> float:
        wishes = make_wishes(
            vocabulary, bars=bars, tempo=None, meter=None, instruments=instruments, max_notes_per_bar=9
        )
        allowed = allowed_tokens(state, wishes)
        options = {"temperature": 1.0, "top_k": None, "top_p": 1.0}
        chosen = token_probabilities(redirected(logits, state, allowed), allowed, **options)  # type: ignore[arg-type]
        return float(chosen[vocabulary.id_of(name)])

    assert probability_of("C:maj", "violin,viola,flute", bars=2) == pytest.approx(0.6, abs=1e-3)
    assert probability_of("EOS", "violin", bars=1) == pytest.approx(0.9, abs=1e-3)  # bar ends and both instruments
    assert probability_of("P64", "violin", bars=1) == pytest.approx(0.1, abs=1e-3)
    assert probability_of("#41", "violin,viola", bars=2) == pytest.approx(0.1, abs=1e-3)  # the flute's place too
    assert probability_of("#41", "violin,viola", bars=1) == pytest.approx(0.9, abs=1e-3)  # it has yet to play
    assert probability_of("EOS", "violin,viola", bars=1) == 0

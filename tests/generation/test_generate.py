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
from benchmarks.controls import broken_controls, random_controls
from meloformer.errors import GenerationError, InputError, SettingsError
from meloformer.generation.cache import PieceCache
from meloformer.generation.decoder import Decoder
from meloformer.generation.generate import stream
from meloformer.generation.wishes import Wishes, make_wishes
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.read import parse_midi
from meloformer.midi.score import DRUMS
from meloformer.midi.write import to_midi_bytes
from meloformer.settings import GenerationSettings
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.grid import METERS
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary

SHORT = GenerationSettings(max_notes_per_bar=6, context=64, bars=3)


@pytest.fixture(scope="module")
def model() -> mf.MeloFormer:
    torch.manual_seed(1)
    return mf.MeloFormer(mf.ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16)).eval()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_wish_is_obeyed(model: mf.MeloFormer, seed: int) -> None:
    rng = np.random.default_rng(seed)
    controls = random_controls(rng)
    pieces = mf.generate(model, settings=SHORT, seed=seed, num=int(rng.integers(1, 4)), **controls)
    for ids in pieces:
        assert broken_controls(ids, controls, model.vocabulary) == []
        types = model.vocabulary.types[ids]
        bar_lines = np.flatnonzero(types == TokenType.CHORD)
        notes = [int((types[start:stop] == TokenType.PITCH).sum()) for start, stop in pairwise([*bar_lines, len(ids)])]
        assert max(notes) <= SHORT.max_notes_per_bar + 4  # wished instruments may still come


def test_a_model_looks_back_as_far_as_its_rows_reached() -> None:
    model = mf.load("packaged")
    assert model.seq_len == 16_384

    def written(**wishes: Any) -> list[int]:
        return mf.generate(model, bars=8, seed=3, instruments="piano", **wishes)[0].tolist()

    everything, short = written(), written(context=64)
    assert everything != short
    model.seq_len = 64
    assert written() == short
    assert written(context=100_000) == everything


def test_a_control_that_is_not_obeyed_is_found(model: mf.MeloFormer) -> None:
    vocabulary = model.vocabulary
    text = "BOS C:maj 4/4 120 #D T0 P36 V9 #0 T0 P60 D12 V9 P64 F:maj 3/4 #33 T0 P40 D3 V9 EOS"
    ids = np.array([vocabulary.id_of(name) for name in text.split()])
    fine = {
        "bars": 2, "tempo": 119.0, "meter": "1:4/4 2:3/4", "instruments": "drums,bass,piano", "chords": "C:maj F:maj",
        "max_polyphony": 2, "pitch_range": "40-64",
    }  # fmt: skip
    assert broken_controls(ids, fine, vocabulary) == []
    wrong = {
        "bars": 3, "tempo": 140.0, "meter": "4/4", "instruments": "drums,bass,piano,violin", "chords": "C:maj",
        "max_polyphony": 1, "pitch_range": "41-64",
    }  # fmt: skip
    for name, value in wrong.items():
        (problem,) = broken_controls(ids, {**fine, name: value}, vocabulary)
        assert problem.startswith(name)
    assert broken_controls(ids, {**fine, "instruments": "bass,piano"}, vocabulary) != []
    (problem,) = broken_controls(ids, {**fine, "max_rest": 0}, vocabulary)
    assert problem.startswith("instruments=drums,bass,piano: found {'drums': [0, 1], 'bass': [1, 0], 'piano': [0, 1]}")
    assert "grammar" in broken_controls(ids[:-1], fine, vocabulary)[0]


@pytest.mark.parametrize("aim", [1, 2, 4, 8, 16])
def test_density_is_aimed_at(model: mf.MeloFormer, aim: int) -> None:
    pieces = mf.generate(model, num=8, bars=6, density=aim, instruments="piano,violin", seed=2)
    types = model.vocabulary.types
    ids = np.concatenate(pieces)
    notes_a_cell = (types[ids] == TokenType.PITCH).sum() / (types[ids] == TokenType.INSTRUMENT).sum()
    assert 0.7 * aim < notes_a_cell < 1.3 * aim


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


def test_the_first_bar_comes_before_the_others_are_written(
    model: mf.MeloFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, real_step = [], Decoder.step

    def watched_step(self: Decoder, pieces: list[PieceCache], ids: list[int]) -> torch.Tensor:
        steps.append(ids)
        return real_step(self, pieces, ids)

    monkeypatch.setattr(Decoder, "step", watched_step)
    first = next(stream(model, SHORT.model_copy(update={"bars": 40})))
    assert (first.number, first.is_last) == (0, False)
    assert 0 < len(steps) <= len(first.ids)


def test_a_model_looks_back_no_further_than_its_context(model: mf.MeloFormer, monkeypatch: pytest.MonkeyPatch) -> None:
    read, stepped, real_read, real_step = [], [], Decoder.read, Decoder.step

    def watched_read(self: Decoder, ids: np.ndarray) -> tuple[PieceCache, torch.Tensor]:
        read.append(len(ids))
        return real_read(self, ids)

    def watched_step(self: Decoder, pieces: list[PieceCache], ids: list[int]) -> torch.Tensor:
        stepped.extend(piece.facts.position + 2 for piece in pieces)
        return real_step(self, pieces, ids)

    monkeypatch.setattr(Decoder, "read", watched_read)
    monkeypatch.setattr(Decoder, "step", watched_step)
    wish: dict[str, Any] = {
        "num": 2,
        "bars": 24,
        "density": 12,
        "seed": 4,
        "new_instrument_penalty": 0,
        "instrument_change_penalty": 0,
    }
    pieces = mf.generate(model, settings=SHORT, max_notes_per_bar=40, **wish)
    assert all(grammar_errors(ids) == [] for ids in pieces)
    assert min(map(len, pieces)) > 2 * 64
    assert len(read) >= 4
    assert max(read) <= 48
    assert max(stepped) == 64
    monkeypatch.undo()
    unlimited = mf.generate(model, settings=SHORT.model_copy(update={"context": None}), max_notes_per_bar=40, **wish)
    for short, long in zip(pieces, unlimited, strict=True):
        assert np.array_equal(short[:60], long[:60])


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
        ({"meter": "1:4/4 9:3/4"}, GenerationError, "'9:3/4' lies past the piece's 3 bars"),
        ({"meter": "2:4/4 1:3/4"}, GenerationError, "rising bars"),
        ({"meter": "0:4/4"}, GenerationError, "rising bars"),
        ({"instruments": "lute"}, SettingsError, "there is no instrument 'lute'.*flute"),
        ({"instruments": " , "}, GenerationError, "names none"),
        ({"chords": "H:maj"}, GenerationError, "there is no chord 'H:maj'"),
        ({"chords": "C/E"}, GenerationError, "no chord 'C/E'; chords name no bass: write 'C'"),
        ({"chords": "C6/9"}, GenerationError, "no chord 'C6/9'.*the qualities are"),
        ({"chords": "C:major"}, GenerationError, "C:maj.*the qualities are maj min dim"),
        ({"chords": " "}, GenerationError, "names? none"),
        ({"pitch_range": "84-36"}, GenerationError, "'84-36' holds no pitch"),
        ({"pitch_range": "36-999"}, GenerationError, "holds no pitch"),
        ({"pitch_range": "low"}, GenerationError, "36-84 or C2-C6"),
        ({"max_polyphony": 0}, SettingsError, "generation.max_polyphony.*found 0"),
        ({"density": 0}, SettingsError, "generation.density"),
        ({"tempo": 1000.0}, SettingsError, "generation.tempo"),
        ({"bars": 0}, SettingsError, "generation.bars"),
        ({"temperature": -1.0}, SettingsError, "generation.temperature"),
        ({"temperature_of": {"melody": 1.0}}, SettingsError, "generation.temperature_of"),
        ({"key": "C"}, SettingsError, "unknown setting generation.key"),
        ({"replace": "bass"}, GenerationError, "--replace bass needs music of your own; .*--primer"),
        ({"primer_bars": 2}, GenerationError, "--primer-bars 2 needs music"),
        ({"primer": "nowhere.mid"}, InputError, "nowhere.mid"),
    ],
)
def test_impossible_wishes_are_refused(model: mf.MeloFormer, wish: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mf.generate(model, settings=SHORT, **wish)


def test_wishes_are_read_as_people_write_them() -> None:
    vocabulary = Vocabulary.default()

    def wishes(**fields: Any) -> Wishes:
        return make_wishes(vocabulary, GenerationSettings(**fields))

    named = "C Am | Db:min7, G7 N F#m7 Bbmaj7 Dm7b5 Bø C+ C° C°7 Gsus"
    names = [CHORD_NAMES[chord] for chord in wishes(chords=named).chords]
    assert names == [
        "C:maj", "A:min", "C#:min7", "G:7", "N", "F#:min7", "Bb:maj7", "D:hdim7", "B:hdim7", "C:aug", "C:dim", "C:dim7",
        "G:sus4",
    ]  # fmt: skip
    assert wishes(pitch_range="C2-c6").pitch_range == (36, 84)
    assert wishes(pitch_range="Bb-1 - 127").pitch_range == (10, 127)
    meters = wishes(meter="1:4/4, 9:3/4").meters
    assert [(bar, METERS[number]) for bar, number in meters] == [(0, (4, 4)), (8, (3, 4))]
    assert wishes(instruments="Drums, 33").instruments == (frozenset({DRUMS}), frozenset({33}))


def test_what_a_pruned_vocabulary_lacks_is_refused() -> None:
    full = Vocabulary.default()
    counts = np.ones(len(full))
    for name in ("3/4", "#D", "250", "C:maj", "P60"):
        counts[full.id_of(name)] = 0
    model = mf.MeloFormer(mf.ModelSettings.of_size("tiny", num_layers=1), full.pruned(counts)).eval()
    wishes: list[dict[str, Any]] = [
        {"meter": "3/4"}, {"instruments": "drums"}, {"tempo": 250.0}, {"chords": "C"}, {"pitch_range": "60-60"},
    ]  # fmt: skip
    for wish in wishes:
        with pytest.raises(GenerationError, match="vocabulary has no"):
            mf.generate(model, settings=SHORT, **wish)
    (ids,) = mf.generate(model, settings=SHORT)
    assert grammar_errors(ids, model.vocabulary) == []
    assert DRUMS not in mf.decode(ids, model.vocabulary).program

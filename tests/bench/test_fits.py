"""What fits, what is recommended, what it costs, and what may be compared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.bench.compare import split_comparison
from meloformer.bench.cost import Corpus, speed_of, training_time
from meloformer.bench.fits import GIB, Allowance, Fits, largest, recommend, with_model
from meloformer.bench.prediction import MemoryProfile
from meloformer.errors import SettingsError
from meloformer.settings import Settings
from meloformer.settings_file import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(*changes: str) -> Settings:
    return load_settings(None, ["model.size=tiny", *changes])


@given(st.integers(0, 300), st.integers(1, 300))
def test_bisection_finds_the_largest_that_is_good(edge: int, most: int) -> None:
    asked: list[int] = []

    def is_good(number: int) -> bool:
        asked.append(number)
        return number <= edge

    assert largest(is_good, most) == min(edge, most)
    assert all(1 <= number <= most for number in asked)
    assert len(asked) < 20


def test_what_fits_fits_and_one_more_does_not() -> None:
    settings = tiny("bench.context_mib=100", "bench.fragmentation=0.2")
    profile, gpu_bytes = MemoryProfile.of(settings.model, settings.training), 2 * GIB
    fits = Fits.of(settings, gpu_bytes)

    def needed(num_tokens: int) -> float:
        return 1.2 * profile.at(num_tokens).total + 100 * 2**20

    assert needed(fits.longest_seq_len) <= gpu_bytes < needed(fits.longest_seq_len + 1024)
    assert needed(4096 * fits.largest_batch) <= gpu_bytes < needed(4096 * (fits.largest_batch + 1))
    assert Fits.of(settings, GIB / 20).longest_seq_len == Fits.of(settings, GIB / 20).largest_batch == 0


@pytest.mark.parametrize("gpu_mem", [1.0, 1.6, 4.0])
def test_recommended_settings_fit_and_make_up_the_step(gpu_mem: float) -> None:
    settings = tiny()
    best = recommend(settings, gpu_mem * GIB)
    assert best is not None
    chosen = with_model(settings, checkpointing=best.checkpointing)
    memory = MemoryProfile.of(chosen.model, chosen.training).at(best.seq_len * best.batch_size)
    assert Allowance.of(settings.bench).needed_bytes(memory.total) == best.needed_bytes <= gpu_mem * GIB
    assert best.seq_len <= settings.bench.target_seq_len
    assert best.step_tokens == settings.bench.target_step_tokens


def test_where_nothing_fits_nothing_is_recommended() -> None:
    assert recommend(tiny(), GIB / 2) is None


def test_another_size_has_its_own_shape_and_keeps_what_was_chosen_beside_it() -> None:
    settings = tiny("model.type_rule=true", "model.num_layers=3")
    base = with_model(settings, size="base").model
    assert (base.dim, base.num_layers, base.type_rule) == (512, 3, True)


def test_hours_and_money_follow_from_tokens_and_throughput() -> None:
    bench = tiny("bench.songs=1000", "bench.tokens_per_song=3600", "bench.epochs=2", "bench.price_per_gpu_hour=3").bench
    corpus = Corpus.of(bench, None)
    assert corpus.tokens == 3_600_000
    assert speed_of(100, 8, 0.5) == 400
    time = training_time("here", bench, corpus, 8, speed_of(100, 8, 0.5))
    assert time.hours == pytest.approx(5)
    assert time.cost == pytest.approx(120)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("checkpointing=none,full", ("model.checkpointing", ["none", "full"])),
        ("training.optimizer=adamw, muon", ("training.optimizer", ["adamw", "muon"])),
        ("heads={track=1,onset=3},{union=4}", ("model.heads", ["{track=1,onset=3}", "{union=4}"])),
        ("bar_offsets=[0,1],[0]", ("model.bar_offsets", ["[0,1]", "[0]"])),
    ],
)
def test_commas_in_brackets_divide_no_values(text: str, found: tuple[str, list[str]]) -> None:
    assert split_comparison(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checkpointing", "two values"),
        ("checkpointing=none", "two values"),
        ("checkpointing=none,", "two values"),
        ("checkpointing=none,none", "twice"),
        ("chekpointing=none,full", "did you mean checkpointing"),
        ("device=cpu,cuda", "no setting 'device'"),
    ],
)
def test_what_cannot_be_compared_is_refused(text: str, said: Any) -> None:
    with pytest.raises(SettingsError, match=said):
        split_comparison(text)

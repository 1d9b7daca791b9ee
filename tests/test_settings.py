"""Settings: one source of defaults, validated once, and a file that reproduces them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meloformer.errors import SettingsError
from meloformer.settings import Settings
from meloformer.settings_file import load_settings, to_toml

OF_EVERY_KIND = (
    [],
    ["model.size=tiny"],
    ["model.size=base", "model.heads={track=2,union=2}", "model.bar_offsets=[0,3]"],
    ["model.size=large", "model.summary_ffn=own", "training.steps=7", "generation.instruments=drums,bass"],
)


@pytest.mark.parametrize("overrides", OF_EVERY_KIND)
def test_a_written_file_gives_the_same_settings_again(overrides: list[str], tmp_path: Path) -> None:
    settings = load_settings(None, overrides)
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(settings))
    assert load_settings(path) == settings


def test_another_size_beside_a_file_is_another_size(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(load_settings(None, ["model.size=tiny", "model.rope=both"])))
    base = load_settings(path, [], {"model.size": "base"}).model
    assert (base.num_layers, base.dim, base.num_heads, base.rope) == (12, 512, 8, "both")


def test_options_win_over_texts_texts_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[training]\nseq_len = 300\nbatch_size = 3\n")
    settings = load_settings(
        path,
        ["training.batch_size=5", "training.seed=5"],
        {"training.seed": 6, "training.steps": None},
        recipe=["training.seq_len=200", "training.epochs=2"],
    ).training
    assert (settings.seq_len, settings.batch_size, settings.seed, settings.epochs) == (300, 5, 6, 2)
    assert settings.steps is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.nonsense=1", "unknown setting model.nonsense"),
        ("nonsense.field=1", "unknown setting nonsense"),
        ("training.seq_length=512", r"unknown setting training\.seq_length, did you mean training\.seq_len\?"),
        ("trainig.steps=5", r"unknown setting trainig, did you mean training\?"),
        ("training.seq_len=3", r"training\.seq_len.*found 3"),
        ("training.learning_rate=inf", r"training\.learning_rate"),
        ("model.dim=130", "no head size divisible by 4"),
        ("model.heads={}", "names no family"),
        ("model.bar_offsets=[1]", "must contain 0"),
        ("pack.val_share=0.99", "nothing to train on"),
        ("training", "has no '='"),
        ("training=1", "is no setting"),
    ],
)
def test_what_is_no_setting_is_named_with_its_value(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(None, [override])


def test_every_field_says_what_it_is_for() -> None:
    for name, section in Settings.model_fields.items():
        assert isinstance(section.annotation, type)
        for field, info in section.annotation.model_fields.items():
            assert info.description, f"{name}.{field}"

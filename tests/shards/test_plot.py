"""The picture of shards: there whole, whatever they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from meloformer.errors import OutputError
from meloformer.settings import Settings
from meloformer.shards.info import read_info
from meloformer.shards.pipeline import tokenize_pieces
from meloformer.shards.plot import COLOUR, MEDIAN_COLOUR, plot_info


def share_of(picture: Path, hexadecimal: str) -> float:
    wanted = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(imread(picture)[:, :, :3] - wanted).max(axis=2) < 0.02).mean())


def test_bars_and_medians_are_drawn(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "shards", Settings())
    info = read_info(tmp_path / "shards", Settings())
    plot_info(info, tmp_path / "info.png", title="shards")
    assert share_of(tmp_path / "info.png", COLOUR) > 0.05
    assert share_of(tmp_path / "info.png", MEDIAN_COLOUR) > 0.0005
    assert sorted(path.name for path in tmp_path.iterdir()) == ["info.png", "shards"]


def test_shards_without_documents_have_an_empty_picture(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music / "broken"], tmp_path / "none", Settings())
    plot_info(read_info(tmp_path / "none", Settings()), tmp_path / "info.png")
    assert imread(tmp_path / "info.png").shape[0] > 100
    assert share_of(tmp_path / "info.png", COLOUR) == 0


def test_a_place_that_cannot_be_written_is_an_error(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music / "few"], tmp_path / "shards", Settings())
    with pytest.raises(OutputError, match="cannot write"):
        plot_info(read_info(tmp_path / "shards", Settings()), tmp_path / "absent" / "info.png")

"""Settings of what is written, shown and played."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from meloformer.settings.section import Positive, Section, Share

TypeName = Literal["chord", "meter", "tempo", "instrument", "onset", "pitch", "duration", "velocity"]


class GenerationSettings(Section):
    """From weights to music."""

    bars: Annotated[int, Field(ge=1, le=4096)] = 32
    """Exactly this many bars, those of a primer with them; a piece that is rewritten keeps its own."""
    num: Positive = 1
    """Number of pieces, which are written side by side."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 always takes the likeliest token."""
    temperature_of: dict[TypeName, Annotated[float, Field(ge=0)]] | None = None
    """Token type -> temperature among its tokens, such as ``{pitch=0.9,velocity=1.2}``; how likely the type is,
    ``temperature`` still says."""
    top_k: Positive | None = None
    """Sample among this many of the likeliest tokens only."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample among the likeliest tokens that together have this probability."""
    min_p: Share = 0.02
    """Sample among tokens that are at least so likely as this share of the likeliest's probability."""
    tempo: Annotated[float, Field(ge=40, le=250)] | None = None
    """Quarters a minute, for all that is written; by default the model chooses."""
    meter: str | None = None
    """Such as ``3/4`` for all, or ``1:4/4 9:3/4`` from bars on, counted from 1; by default the model chooses."""
    chords: str | None = None
    """Such as ``C:maj A:min F:maj G:7``: the harmony of one bar after the other, over and over again."""
    instruments: str | None = None
    """Such as ``drums,bass,piano`` or ``#0,#33``: only these play. Each begins within four bars and keeps playing."""
    max_rest: Annotated[int, Field(ge=0)] = 1
    """So many bars in a row a wished instrument is silent at most, once it has begun, also one of ``replace`` and
    ``add``; with the piece's number of bars it may be silent for good. By 1 it sounds in about half of the bars or
    more: of 2,221 instruments that do in a quarter of the bars of real pieces nine in ten do in 59 % or more."""
    instrument_change_penalty: Annotated[float, Field(ge=0)] = 1.0
    """By so many nats an instrument that sounded in the bar before is likelier to play, and one that did not is less
    likely to; 0 leaves it to the model. A silent bar is passed over, who rings on is left alone, and so is who was
    asked for and has yet to begin. It comes before temperature and what is cut off."""
    new_instrument_penalty: Annotated[float, Field(ge=0)] = 3.0
    """By so many nats less likely is besides, from the fifth bar on, an instrument that has not played so far and that
    nobody asked for, and from the first on a second one of a wished family; 0 leaves it to the model."""
    max_polyphony: Positive | None = None
    """At most so many notes of one instrument sound at once."""
    pitch_range: str | None = None
    """Such as ``36-84`` or ``C2-C6``: no pitch lies outside; drums are exempt."""
    density: Annotated[float, Field(gt=0, le=256)] | None = None
    """Notes that an instrument that plays in a bar has about; a target, not a rule."""
    primer: Path | None = None
    """Music of one's own, which goes on; or of which ``replace``, ``add`` or ``vary`` write a part anew."""
    primer_bars: Positive | None = None
    """Take only so many of its bars."""
    replace: str | None = None
    """Instruments of the primer that are written anew and keep playing, while all others stay."""
    add: str | None = None
    """Instruments that the primer is given besides, and that keep playing."""
    vary: str | None = None
    """Bars of the primer, such as ``9-16``, outside of which nothing changes. Alone it writes all of them anew."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Piece k of a seed is the same whatever ``num`` is."""
    max_notes_per_bar: Positive = 256
    """A bar with this many new notes ends as soon as the grammar and the wished instruments allow."""
    context: Annotated[int, Field(ge=64)] | None = None
    """How many tokens the model looks back at most; by default as many as the rows had that it was trained on, since it
    knows nothing of what is farther away: a model that was trained on rows of 4,096 paid 3.51 nats a note beyond 8,192
    tokens of real music, and 9.36 where it looked back all the way. At so many, the latest three quarters of them,
    in whole bars, are read anew, and the piece goes on from these."""
    device: str = "auto"
    """As in training."""


class RenderSettings(Section):
    """What is made of a piece besides its piano roll, for ``generate`` and ``render``."""

    html: bool = False
    """A page that shows the piece and plays it in a browser; one file, without a network."""
    audio: bool = False
    """The sound, as a WAV file; needs ``meloformer[audio]``."""
    soundfont: Path | None = None
    """The SoundFont (.sf2) with the sounds; by default the file that MELOFORMER_SOUNDFONT names, or the first one found
    where systems keep them."""
    port: str | None = None
    """The MIDI port to play on, by its name or a part of it; needs ``meloformer[live]``."""
    buffer_bars: Annotated[int, Field(ge=0, le=64)] = 1
    """Music that is played while it is generated begins when so many bars are ready ahead of the first; where it had to
    wait for a bar, it goes on when so many are again."""

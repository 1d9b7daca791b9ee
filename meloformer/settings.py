"""Every setting, with its default and its reason, as frozen pydantic models.

A command takes ``--config FILE.toml`` and repeated ``--set section.field=value``;
:func:`~meloformer.settings_file.load_settings` lays them over the defaults, validates once, and the rest of the program
trusts what it gets.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from meloformer.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Size = Literal["tiny", "small", "base", "large", "xlarge"]
TypeName = Literal["chord", "meter", "tempo", "instrument", "onset", "pitch", "duration", "velocity"]
HeadFamily = Literal["union", "track", "ensemble", "onset", "pitch"]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


class FilterSettings(Section):
    """Which pieces are worth learning from. Every rule names its reason in ``rejects.jsonl``."""

    max_file_bytes: Positive = 4_000_000
    """Larger files are rejected as ``too-large`` before they are read; the largest of 742 real files has 300 kB."""
    min_notes: Positive = 32
    """Fewer notes are ``too-few-notes``."""
    min_pitches: Positive = 4
    """Fewer different pitches, drums included, are ``too-few-pitches``."""
    min_bars: Positive = 4
    """Fewer bars are ``too-short``."""
    max_bars: Positive = 4096
    """More bars are ``too-long``."""
    max_repeated: Share = 0.8
    """Where one pitch of one instrument is a larger share of all notes, the piece is ``one-note-repeated``."""
    max_empty_bars: Share = 0.5
    """Where a larger share of the bars is silent, the piece is ``mostly-silence``."""
    max_tracks: Positive = 64
    """More tracks with notes are ``too-many-tracks``."""
    min_tempo_bpm: Annotated[float, Field(gt=0)] = 20
    """A mean tempo below it is ``absurd-tempo``."""
    max_tempo_bpm: Annotated[float, Field(gt=0)] = 400
    """A mean tempo above it is ``absurd-tempo``."""
    min_on_beat: Share = 0.25
    """How strongly onsets keep to a part of the beat, 0 (anywhere) to 1 (exactly); less is ``not-on-the-beat``."""
    keep_recovered: bool = True
    """Keep what could be read of damaged files; else they are ``recovered``, with what was mended."""
    keep_duplicates: bool = False
    """Keep pieces whose notes equal another's after quantisation, also transposed or re-tempoed; else ``duplicate``."""


class TokenSettings(Section):
    """From a score to tokens."""

    sustain: Literal["ignore", "extend"] = "ignore"
    """``extend`` lets the sustain pedal lengthen notes up to its release, or to the next note of that pitch."""
    chords: bool = True
    """Name the harmony of every bar; without it every CHORD token is ``N``."""


class PackSettings(Section):
    """From tokens to shards."""

    level: Annotated[int, Field(ge=1, le=22)] = 3
    """zstd level; 19 packs 20 % denser and takes many times longer."""
    shard_tokens: Positive = 8_000_000
    """A shard is closed when it holds this many tokens (16 MB of ids before compression)."""
    val_share: Share = 0.05
    """Share of the documents that go to validation, by content hash."""
    test_share: Share = 0.05
    """Share of the documents that go to the test split, by content hash."""
    workers: Positive | None = None
    """Processes that read and tokenise; by default one for every core. What is written is the same for any number."""
    scheduler: str | None = None
    """Address of a Dask scheduler, such as ``tcp://host:8786``, whose workers read instead; they must see the files
    under the same paths."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60
    """A file that takes longer is rejected as ``timeout``. MIDI takes milliseconds, a long score some 10 s."""
    worker_memory_mb: Annotated[int, Field(ge=200)] = 600
    """A file for which a process needs more is rejected as ``too-large``. Most need 70 MB, the largest MIDI files that
    ``filter.max_file_bytes`` lets through 250 MB, long scores through music21 400 MB."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self

    @property
    def num_workers(self) -> int:
        """``workers``, or the number of cores that this process may use."""
        if self.workers is not None:
            return self.workers
        has_affinity = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


class SizeRow(NamedTuple):
    """One row of the table of sizes."""

    num_layers: int
    dim: int
    num_heads: int
    ffn_dim: int
    num_kv_heads: int
    summary_ffn: Literal["own", "shared"]


SIZES: dict[str, SizeRow] = {
    "tiny": SizeRow(num_layers=4, dim=128, num_heads=4, ffn_dim=384, num_kv_heads=4, summary_ffn="own"),
    "small": SizeRow(num_layers=6, dim=256, num_heads=4, ffn_dim=1408, num_kv_heads=4, summary_ffn="own"),
    "base": SizeRow(num_layers=12, dim=512, num_heads=8, ffn_dim=2816, num_kv_heads=8, summary_ffn="shared"),
    "large": SizeRow(num_layers=16, dim=768, num_heads=12, ffn_dim=4096, num_kv_heads=4, summary_ffn="shared"),
    "xlarge": SizeRow(num_layers=24, dim=1024, num_heads=16, ffn_dim=5632, num_kv_heads=4, summary_ffn="shared"),
}


def equal_heads(num_heads: int) -> dict[HeadFamily, int]:
    """The default mix: equal shares of ``track``, ``ensemble``, ``onset`` and ``pitch``."""
    return {"track": num_heads // 4, "ensemble": num_heads // 4, "onset": num_heads // 4, "pitch": num_heads // 4}


class ModelSettings(Section):
    """The transformer. ``size`` fills in what is not given."""

    size: Size = "small"
    """Row of the table of sizes that the next six fields default to."""
    num_layers: Positive = Field(default=0, validate_default=False)
    """Number of layers."""
    dim: Positive = Field(default=0, validate_default=False)
    """Width of the residual streams; a multiple of the number of heads, and a head size divisible by 4."""
    ffn_dim: Positive = Field(default=0, validate_default=False)
    """Width inside a SwiGLU."""
    heads: dict[HeadFamily, Positive] = Field(default_factory=dict)
    """Head family -> number of heads; the order is the order of the heads."""
    num_kv_heads: Positive = Field(default=0, validate_default=False)
    """Key-value heads; each serves the same number of query heads."""
    summary_ffn: Literal["own", "shared"] | None = None
    """Whether the summary stream has a feed-forward network of its own."""
    type_rule: bool = False
    """Hide token types from each other as the published rule does; the prototype learnt better without."""
    bar_offsets: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2, 4)
    """How many bars back the ``ensemble`` and ``union`` heads look."""
    rope: Literal["position", "time", "both"] = "both"
    """What rotary positions count: tokens, grid steps of musical time, or half of the dimensions each."""
    attention: Literal["auto", "dense", "sparse", "flex"] = "auto"
    """How attention is computed, not what. ``dense`` is the reference, with masks of all tokens by all tokens;
    ``sparse`` reads only what is seen, and has no ``union`` heads and no type rule; ``flex`` does the same by compiled
    kernels for CUDA, with all rules; ``auto`` takes the fastest."""
    checkpointing: Literal["none", "ffn", "attention", "full"] = "none"
    """What is computed again in the backward pass to save memory: nothing, the feed-forward networks, these and
    attention each on its own, or whole layers. Loss and gradients are the same; each step takes longer and needs less
    memory."""
    attention_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Of queries, keys and values: that of the model, or another by a detour, to measure what the detour costs."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        row = SIZES.get(given.get("size", "small"))
        if row is None:
            return given
        filled: dict[str, Any] = {name: value for name, value in row._asdict().items() if name != "num_heads"}
        filled["heads"] = equal_heads(row.num_heads)
        if "heads" in given and "num_kv_heads" not in given:
            try:
                num_heads = sum(given["heads"].values())
            except (AttributeError, TypeError):
                num_heads = 0
            if num_heads and (row.num_kv_heads == row.num_heads or num_heads % row.num_kv_heads):
                filled["num_kv_heads"] = num_heads
        return {**filled, **given}

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if not self.heads:
            raise ValueError("heads names no family")
        if self.dim % self.num_heads or self.head_dim % 4:
            raise ValueError(f"dim {self.dim} over {self.num_heads} heads gives no head size divisible by 4")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads do not share {self.num_kv_heads} key-value heads evenly")
        if 0 not in self.bar_offsets:
            raise ValueError("bar_offsets must contain 0, the bar itself")
        return self

    @property
    def num_heads(self) -> int:
        """Query heads of a layer."""
        return sum(self.heads.values())

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads

    @classmethod
    def of_size(cls, size: Size, **changes: Any) -> ModelSettings:
        """The settings of one size, with some fields changed.

        Raises:
            SettingsError: The size is unknown or a value does not fit.
        """
        return checked(cls, "model", {"size": size, **changes})


def checked(section: type[SectionType], name: str, values: dict[str, Any]) -> SectionType:
    """One section from plain values.

    Raises:
        SettingsError: An unknown field or a value out of range, named ``name.field``.
    """
    try:
        return section(**values)
    except ValidationError as error:
        raise SettingsError(first_problem(error, prefix=f"{name}.")) from None


class TrainingSettings(Section):
    """From shards to weights."""

    shards: Path = Path("shards")
    """Folder that ``pack`` wrote."""
    seq_len: Annotated[int, Field(ge=64)] = 2048
    """Tokens in a row. Longer documents are cut at bar lines."""
    batch_size: Positive = 4
    """Rows in one forward and backward pass."""
    accumulation: Positive = 1
    """Passes of each process whose gradients are added up before a step."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make rows ready ahead of the training, for each process that trains; 0 is none. By default 1 on a
    CPU with several cores, and up to 4 on a GPU. The rows and their order are the same for any number."""
    max_damaged: Annotated[int, Field(ge=0)] = 100
    """Documents that may turn out to be damaged while a run reads them, and are left out; one more ends the run."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of the layers; weights and optimisers are in fp32. By default bf16 on CUDA devices that have it, else fp32."""
    compile: bool = False
    """Compile the feed-forward networks and norms on CUDA (``torch.compile``); the first steps take longer."""
    init: Path | None = None
    """A run, checkpoint or file of weights to start from, to train on one's own music what others trained."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """The run ends after this long, with a checkpoint; a resumed run has as long again."""
    steps: Positive | None = None
    """Optimiser steps; by default what ``epochs`` amounts to."""
    epochs: Annotated[float, Field(gt=0, le=1_000_000)] = 10
    """Passes over the training split; ignored where ``steps`` is given."""
    transpose: bool = True
    """Every document in another key in every epoch, -5 to +6 semitones; chords move along, drums stay."""
    tempo_bins: Annotated[int, Field(ge=0, le=16)] = 1
    """Every document faster or slower by up to so many bins of tempo, each some 4 to 10 %, anew in every epoch."""
    velocity_bins: Annotated[int, Field(ge=0, le=16)] = 2
    """Every document louder or softer by up to so many of the 32 bins of velocity, anew in every epoch."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """``muon``: torch.optim.Muon for the matrices of the layers, AdamW for the rest. ``adamw``: AdamW for all."""
    learning_rate: Annotated[float, Field(gt=0)] = 8e-3
    """Peak learning rate of both: Muon's updates are scaled to the size of AdamW's. ``tiny`` after 200 steps on real
    files: 2.96, 2.71, 2.65, 2.62, 2.72 validation nats a token at 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of matrices only."""
    warmup_share: Share = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """How it falls: along a cosine, or not at all until the last ``decay_share`` of the steps, and then straight."""
    decay_share: Share = 0.2
    """Of the steps, for ``wsd``."""
    final_rate: Share = 0.05
    """Where it ends, as a share of the peak."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""
    eval_every: Positive = 100
    """Steps between two validations; the last step is always validated."""
    eval_rows: Positive = 32
    """Rows of the validation split that one validation reads at the most."""
    sample_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two short pieces, written as MIDI into the run's ``samples``; 0 is never."""
    sample_bars: Annotated[int, Field(ge=1, le=64)] = 8
    """Their length."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints, each of which is validated; the last step always has one."""
    keep_checkpoints: Positive = 3
    """How many of the newest checkpoints stay on the disk, beside the one with the lowest validation loss."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights and of the order of the rows."""
    device: str = "auto"
    """``auto`` takes CUDA where it is present; ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""


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
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Sample among the likeliest tokens that together have this probability."""
    min_p: Share = 0.0
    """Sample among tokens that are at least so likely as this share of the likeliest's probability."""
    tempo: Annotated[float, Field(ge=40, le=250)] | None = None
    """Quarters a minute, for all that is written; by default the model chooses."""
    meter: str | None = None
    """Such as ``3/4`` for all, or ``1:4/4 9:3/4`` from bars on, counted from 1; by default the model chooses."""
    chords: str | None = None
    """Such as ``C:maj A:min F:maj G:7``: the harmony of one bar after the other, over and over again."""
    instruments: str | None = None
    """Such as ``drums,bass,piano`` or ``#0,#33``: only these play, each at least once."""
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
    """Instruments of the primer that are written anew, while all others stay."""
    add: str | None = None
    """Instruments that the primer is given besides."""
    vary: str | None = None
    """Bars of the primer, such as ``9-16``, outside of which nothing changes. Alone it writes all of them anew."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Piece k of a seed is the same whatever ``num`` is."""
    max_notes_per_bar: Positive = 256
    """A bar with this many new notes ends as soon as the grammar and the wished instruments allow."""
    context: Annotated[int, Field(ge=64)] | None = None
    """How many tokens the model looks back at most, for models trained on short rows; by default all. At so many, the
    latest three quarters of them, in whole bars, are read anew, and the piece goes on from these."""
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


class BenchSettings(Section):
    """What ``bench`` measures and reckons with."""

    seq_len: Annotated[int, Field(ge=64)] = 1024
    """Tokens in a row of the measured step."""
    batch_size: Positive = 1
    """Rows of the measured step."""
    repeats: Positive = 5
    """Measured steps, after ``warmup``; the median is reported with the spread."""
    warmup: Annotated[int, Field(ge=0)] = 1
    """Steps before that, reported apart."""
    device: str = "auto"
    """As in training."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights and of the music."""
    gpu_mem: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Memory of the GPU in GiB; by default that of the GPU here, and where there is none 32. What is measured on a GPU
    may take no more."""
    context_mib: Annotated[float, Field(ge=0)] = 700
    """Of it, what CUDA's context, the compiled kernels and cuBLAS's workspaces take, in MiB: an allowance."""
    fragmentation: Share = 0.1
    """What the allocator wastes, as a share of what tensors take: an allowance."""
    target_seq_len: Annotated[int, Field(ge=64)] = 16_384
    """Tokens in a row of the recommended settings, where they fit; with ``--seq-len``, the longest of those."""
    target_batch_size: Positive | None = None
    """Most rows of the recommended settings, by default as many as fit; with ``--batch-size``, the most of those."""
    target_step_tokens: Positive = 131_072
    """Tokens of an optimiser step of the recommended settings; rows and accumulation make it up."""
    songs: Positive = 450_000
    """Pieces to train on, where no shards are given."""
    tokens_per_song: Annotated[float, Field(gt=0)] = 4_614
    """Mean of 681 real files that ``pack`` keeps."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over them."""
    gpus: tuple[Positive, ...] = (1, 8)
    """Numbers of GPUs to tell the time for."""
    scaling_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Throughput of several GPUs as a share of so many times one; an assumption, unless several are here to measure."""
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    """Of one GPU, to reckon with instead of what is measured here."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """In any currency."""


class Settings(Section):
    """All sections, as in a TOML file."""

    filter: FilterSettings = Field(default_factory=FilterSettings)
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    pack: PackSettings = Field(default_factory=PackSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
    render: RenderSettings = Field(default_factory=RenderSettings)
    bench: BenchSettings = Field(default_factory=BenchSettings)

    def with_training(self, **changes: Any) -> Settings:
        """The same with some fields of the training changed; they are taken as they are."""
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})


def _all_names() -> list[str]:
    """Of the sections, and of their fields behind them."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    fields = [f"{name}.{field}" for name, section in sections.items() for field in section.model_fields]  # pyright: ignore
    return [*sections, *fields]


def first_problem(error: ValidationError, prefix: str = "") -> str:
    """The first problem of a failed validation in one sentence, with the setting's name and the value found."""
    problem = error.errors()[0]
    name = prefix + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(name, _all_names(), n=1)
        return f"unknown setting {name}" + (f", did you mean {close[0]}?" if close else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"setting {name}: {message} (found {problem['input']!r})" if name else message

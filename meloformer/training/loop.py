"""The training loop."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from meloformer.errors import MeloFormerError, OutputError
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings, to_toml
from meloformer.shards.output import write_text
from meloformer.training.checkpoint import Optimizers, Position, load_checkpoint, save_checkpoint
from meloformer.training.loss import Evaluation, evaluate, target_losses, unigram_baseline
from meloformer.training.optimizer import learning_rate_at, make_optimizers
from meloformer.training.plan import Plan, make_plan
from meloformer.training.plot import plot_losses

METRICS_FILE = "metrics.jsonl"
LOSS_PICTURE = "loss.png"


class Observer(Protocol):
    """Told what happens; nothing in this package prints."""

    def on_start(self, total_steps: int, first_step: int) -> None:
        """The loop begins, at ``first_step`` where a run is resumed."""

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        """A step was taken: ``loss``, ``learning_rate``, ``gradient_norm``, ``tokens_per_second``."""

    def on_evaluation(self, step: int, validation: Evaluation) -> None:
        """The validation rows were read."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    step: int
    total_steps: int
    loss: float
    """Of the last step, in nats a token."""
    validation: Evaluation | None
    """At the end; ``None`` without validation documents."""
    baseline: Evaluation | None
    """The unigram baseline on the same rows."""
    seconds: float

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its last step."""
        return self.step < self.total_steps


@dataclass
class _Run:
    """What the loop works on."""

    plan: Plan
    model: MeloFormer
    optimizers: Optimizers
    position: Position
    device: torch.device
    validation: list[Batch]
    baseline: Evaluation | None


def train(
    shards: Path, run: Path, settings: Settings, *, resume: bool = False, observer: Observer | None = None
) -> TrainResult:
    """Train a model.

    SIGINT and SIGTERM end the run after the step in hand, with a checkpoint; a second one ends it at once.

    Args:
        shards: What ``pack`` wrote.
        run: Folder of the run; new, unless ``resume``.
        settings: Sections ``model`` and ``training`` count.
        resume: Go on from the newest whole checkpoint of ``run``.
        observer: Told of every step.
    Raises:
        InputError, ShardError: The shards cannot be used.
        OutputError: ``run`` exists already, or cannot be written.
        CheckpointError: There is nothing to resume, or it was made with other settings.
        MeloFormerError: The loss is no longer a finite number.
    """
    state = _begin(shards, run, settings, resume=resume)
    chosen, total = settings.training, state.plan.total_steps
    started = time.monotonic()
    loss, validation = math.nan, None
    if observer is not None:
        observer.on_start(total, state.position.step)
    with _stop_signals() as stop, (run / METRICS_FILE).open("a", encoding="utf-8") as metrics_file:
        batches = _batches(state)
        while state.position.step < total and not stop.is_set():
            step_started = time.monotonic()
            learning_rate = learning_rate_at(state.position.step, total, chosen)
            passes = [next(batches) for _ in range(chosen.accumulation)]
            loss, gradient_norm = _step(state, passes, learning_rate, chosen.clip_norm)
            step = state.position.step + 1
            state.position = replace(state.position, step=step)
            num_targets = sum(batch.num_targets for batch in passes)
            metrics = {
                "loss": round(loss, 5),
                "learning_rate": learning_rate,
                "gradient_norm": round(gradient_norm, 5),
                "tokens_per_second": round(num_targets / (time.monotonic() - step_started), 1),
            }
            _write_line(metrics_file, {"step": step, **metrics})
            if observer is not None:
                observer.on_step(step, metrics)
            ends = step == total or stop.is_set()
            if state.validation and (ends or step % chosen.eval_every == 0):
                validation = evaluate(state.model, state.validation)
                _write_line(metrics_file, {"step": step, "validation": validation.to_dict()})
                if observer is not None:
                    observer.on_evaluation(step, validation)
            if ends or step % chosen.checkpoint_every == 0:
                save_checkpoint(
                    run,
                    state.model,
                    state.optimizers,
                    state.position,
                    keep=chosen.keep_checkpoints,
                    facts=_facts(settings),
                )
    plot_losses(run / METRICS_FILE, run / LOSS_PICTURE, state.baseline)
    seconds = time.monotonic() - started
    return TrainResult(run, state.position.step, total, loss, validation, state.baseline, seconds)


def _begin(shards: Path, run: Path, settings: Settings, *, resume: bool) -> _Run:
    """Data, model and optimisers of a new or a resumed run."""
    plan = make_plan(shards, settings)
    device = choose_device(settings.training.device)
    torch.manual_seed(settings.training.seed)
    with torch.device(device):
        model = MeloFormer(settings.model, plan.shards.vocabulary)
    optimizers = make_optimizers(model, settings.training)
    position = Position(step=0, epoch=0, batch=0)
    if resume:
        position = load_checkpoint(run, model, optimizers, facts=_facts(settings))
        _cut_metrics(run / METRICS_FILE, position.step)
    else:
        _open_run(run, plan, settings)
    validation = _validation_batches(plan, settings, device)
    baseline = None
    if validation:
        baseline = unigram_baseline(plan.training.documents, validation, plan.shards.vocabulary)
    return _Run(plan, model, optimizers, position, device, validation, baseline)


def _step(state: _Run, passes: list[Batch], learning_rate: float, clip_norm: float) -> tuple[float, float]:
    """One optimiser step over some passes: mean loss over all their targets, and the gradient's norm before clipping.

    Raises:
        MeloFormerError: The loss is not finite; the weights are untouched.
    """
    state.model.train()
    num_targets = sum(batch.num_targets for batch in passes)
    total = 0.0
    for batch in passes:
        loss = target_losses(state.model(batch), batch).sum() / num_targets
        loss.backward()
        total += float(loss.detach())
    if not math.isfinite(total):
        raise MeloFormerError(
            f"the loss is {total} after step {state.position.step}",
            "resume with a lower --set training.learning_rate",
        )
    gradient_norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total, float(gradient_norm)


def _batches(state: _Run) -> Iterator[Batch]:
    """Batches without end from where the run stands, which is moved on with every one."""
    loader = state.plan.training
    while True:
        for ids in loader.batches(state.position.epoch, state.position.batch):
            state.position = replace(state.position, batch=state.position.batch + 1)
            yield Batch.of(list(ids), loader.vocabulary, device=state.device)
        state.position = replace(state.position, epoch=state.position.epoch + 1, batch=0)


def _validation_batches(plan: Plan, settings: Settings, device: torch.device) -> list[Batch]:
    """The first ``eval_rows`` rows of the validation split, the same in every run of one ``seq_len``."""
    loader = plan.validation
    wanted = -(-settings.training.eval_rows // loader.batch_size)
    rows = islice(loader.batches(epoch=0), wanted)
    return [Batch.of(list(ids), loader.vocabulary, device=device) for ids in rows]


def _facts(settings: Settings) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it goes on from."""
    chosen = settings.training
    names = ("seq_len", "batch_size", "accumulation", "optimizer", "seed")
    return {
        **{f"model.{name}": value for name, value in settings.model.model_dump(mode="json").items() if name != "size"},
        **{f"training.{name}": getattr(chosen, name) for name in names},
    }


def _open_run(run: Path, plan: Plan, settings: Settings) -> None:
    """Make a new run's folder with its settings and vocabulary.

    Raises:
        OutputError: There is a run already, or the folder cannot be written.
    """
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise OutputError(f"{run} exists already", "go on with --resume, or choose another --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the run {run}: {error.strerror or error}") from None
    write_text(run / "settings.toml", to_toml(settings))
    write_text(run / "vocab.json", plan.shards.vocabulary.to_json())


def _cut_metrics(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that a run goes on from."""
    if path.is_file():
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError):  # a line that was cut off when the process died
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        write_text(path, "".join(f"{line}\n" for line in kept))


def _write_line(file: TextIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal interrupts as usual. Only the main thread hears signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(_number: int, _frame: object) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

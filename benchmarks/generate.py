"""Generation beside a Llama of the same shape with its KV cache, and random wishes put to random weights.

python -m benchmarks.generate SHARDS            print the tables
python -m benchmarks.generate SHARDS --write    put them into docs/benchmarks.md too

Real pieces are read up to a context and gone on with. A step is all that generation does for a token: constraints, the
model, sampling; the token that goes on is that of the piece, since random weights write no music. The contestants take
turns, on one core in fp32, and what is told is the median of process CPU time; every turn has another piece.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.controls import broken_controls, random_controls
from benchmarks.llama import NAME as LLAMA
from benchmarks.llama import llama, llama_turn
from benchmarks.measure import interleaved, machine, table, tell
from meloformer.bench.music import practice_piece
from meloformer.generation.cache import PieceCache
from meloformer.generation.constraints import Constraints
from meloformer.generation.decoder import Decoder
from meloformer.generation.generate import generate
from meloformer.generation.sampling import Sampler
from meloformer.generation.wishes import Wishes
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import save_weights
from meloformer.settings import GenerationSettings, ModelSettings
from meloformer.shards.store import open_shards
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary

MOST_BARS = 100_000
TOGETHER = 8
AT, FLAT = 8192, (1024, 16_384)
"""Contexts at which the goals are."""
RATIO, RATE, FLATNESS, RATIO_TOGETHER, FIRST_NOTE_SECONDS = 3.0, 100.0, 0.8, 3.0, 3.0
"""The goals: times Llama's tokens a second, and tokens a second, at ``AT``; the rate at the longer context of ``FLAT``
as a share of that at the shorter; times the rate of one piece by ``TOGETHER``; CPU seconds from the shell to a file."""
NUM_PIECES = 1000
"""The goal: of so many pieces of random weights each obeys."""


class Turn:
    """Some tokens of generation for pieces side by side, from where they were read to."""

    def __init__(self, decoder: Decoder, pieces: Sequence[np.ndarray], context: int, num_tokens: int) -> None:
        self.decoder = decoder
        vocabulary = decoder.model.vocabulary
        self.caches: list[PieceCache] = [decoder.read(ids[:context])[0] for ids in pieces]
        self.constraints = [Constraints(Wishes(MOST_BARS, max_rest=MOST_BARS), vocabulary) for _ in pieces]
        for constraints, ids in zip(self.constraints, pieces, strict=True):
            for token_id in ids[:context].tolist():
                constraints.advance(token_id)
        self.next = [ids[context : context + num_tokens].tolist() for ids in pieces]
        self.sampler = Sampler(GenerationSettings(), vocabulary)
        self.rngs = [np.random.default_rng(number) for number in range(len(pieces))]

    def __call__(self) -> None:
        """Take it; only once."""
        for tokens in zip(*self.next, strict=True):
            logits = self.decoder.step(self.caches, tokens).numpy()
            for row, token_id, constraints, rng in zip(logits, tokens, self.constraints, self.rngs, strict=True):
                constraints.advance(token_id)
                self.sampler.choose(row, constraints.allowed(), constraints, rng)


def in_turn(turns: list[Callable[[], object]]) -> Callable[[], object]:
    """A task that is the next of ``turns`` each time."""
    waiting = list(turns)
    return lambda: waiting.pop(0)()


def rates(args: argparse.Namespace, pieces: list[np.ndarray], vocabulary: Vocabulary) -> tuple[str, dict[str, float]]:
    """The table of tokens a second by context, and the figures that are asked for."""
    settings = ModelSettings.of_size("small")
    torch.manual_seed(0)
    decoder, other = Decoder(MeloFormer(settings, vocabulary).eval()), llama(settings, vocabulary)
    memory: dict[int, float] = {}
    seen: dict[int, list[str]] = {}
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    for context in args.contexts:
        long_enough = [ids for ids in pieces if len(ids) >= context + args.tokens]
        chosen = [long_enough[turn % len(long_enough)] for turn in range(args.repeats + 1)]
        ours = [Turn(decoder, [ids], context, args.tokens) for ids in chosen]
        seen[context] = [f"{tokens:,.0f}" for tokens in keys_read(ours)]
        memory[context] = float(np.median([turn.caches[0].num_bytes for turn in ours])) / 2**20
        tasks["MeloFormer", context] = in_turn(list(ours))
        if other is not None:
            tasks[LLAMA, context] = in_turn([llama_turn(other, ids, context, args.tokens) for ids in chosen])
    named = {f"{name}, {context}": task for (name, context), task in tasks.items()}
    interleaved(named, repeats=1)  # a first round that does not count
    seconds = interleaved(named, repeats=args.repeats)
    found = {key: args.tokens / seconds[f"{key[0]}, {key[1]}"] for key in tasks}
    rows = []
    for context in args.contexts:
        own, their = found["MeloFormer", context], found.get((LLAMA, context))
        of_llama = 2 * 4 * settings.num_layers * settings.dim * context / 2**20
        rows.append(
            [f"{context:,}", f"{own:.0f}", f"{their:.0f}" if their else "", f"**{own / their:.1f}**" if their else "",
             *seen[context], f"{memory[context]:.0f}", f"{of_llama:.0f}"]
        )  # fmt: skip
    columns = [
        "tokens of context", "MeloFormer, tokens/s", f"{LLAMA}, tokens/s", "ratio",
        *(f"keys read by `{heads.family}`" for heads in decoder.heads), "cache, MiB", "Llama's, MiB",
    ]  # fmt: skip
    figures = {f"ours at {context}": found["MeloFormer", context] for context in args.contexts}
    if other is not None:
        figures |= {
            f"ratio at {context}": found["MeloFormer", context] / found[LLAMA, context] for context in args.contexts
        }
    return table(columns, rows), figures


def keys_read(turns: Sequence[Turn]) -> np.ndarray:
    """(families,) of how many tokens a head of each family reads the keys, in the mean over all steps of the turns."""
    lengths = []
    for turn in turns:
        cache = turn.caches[0].copy()  # takes tokens as in decoding, but bars do not end in it
        lengths += [[place.read[0].shape[-1] for place in cache.advance(token_id)] for token_id in turn.next[0]]
    return np.mean(lengths, axis=0)


def together(args: argparse.Namespace, pieces: list[np.ndarray], vocabulary: Vocabulary) -> tuple[list[str], float]:
    """A row: tokens a second of one piece and of eight, from their first token on; and their ratio."""
    torch.manual_seed(0)
    decoder = Decoder(MeloFormer(ModelSettings.of_size("small"), vocabulary).eval())
    num_tokens = 4 * args.tokens
    fit = [ids for ids in pieces if len(ids) > num_tokens]
    alone = [Turn(decoder, [fit[turn]], 1, num_tokens) for turn in range(args.repeats + 1)]
    eight = [Turn(decoder, fit[:TOGETHER], 1, num_tokens) for _ in range(args.repeats + 1)]
    tasks = {"one": in_turn(list(alone)), "eight": in_turn(list(eight))}
    interleaved(tasks, repeats=1)
    seconds = interleaved(tasks, repeats=args.repeats)
    one, many = num_tokens / seconds["one"], TOGETHER * num_tokens / seconds["eight"]
    return [f"first {num_tokens} tokens", f"{one:.0f}", f"{many:.0f}", f"**{many / one:.1f}**"], many / one


def first_note(repeats: int) -> tuple[float, float]:
    """Median CPU and wall seconds from the start of ``meloformer generate`` to its first file, of one bar."""
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "small.safetensors"
        torch.manual_seed(0)
        save_weights(MeloFormer(ModelSettings.of_size("small")), weights)
        options = "--bars 1 --instruments piano --density 8 --device cpu --quiet"
        taken = []
        for number in range(repeats):
            out = Path(place) / str(number)
            command = [sys.executable, "-m", "meloformer", "generate", "--checkpoint", str(weights), "--out", str(out)]
            started = time.perf_counter()
            with subprocess.Popen([*command, *options.split()], stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and not (out / "seed0-1.mid").exists():
                    time.sleep(0.005)
                taken.append((_cpu_seconds(process.pid), time.perf_counter() - started))
            if process.returncode:
                raise SystemExit("meloformer generate failed")
    cpu, wall = np.median(np.array(taken), axis=0)
    return float(cpu), float(wall)


def _cpu_seconds(pid: int) -> float:
    """Of a running process; not a number where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def obeyed(num_pieces: int) -> tuple[str, int]:
    """One sentence: how many pieces of random weights under random wishes obey; and how many."""
    rng = np.random.default_rng(0)
    done, wished, problems = 0, Counter[str](), []
    while done < num_pieces:
        torch.manual_seed(done)
        heads = {"track": 1, "ensemble": 1, "onset": 1, "pitch": 1}
        settings = ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16, heads=heads)
        model = MeloFormer(settings).eval()
        for _ in range(min(20, num_pieces - done)):
            controls = random_controls(rng)
            (ids,) = generate(model, seed=done, max_notes_per_bar=int(rng.integers(1, 40)), **controls)
            wished.update(controls.keys())
            problems += [(done, problem) for problem in broken_controls(ids, controls, model.vocabulary)]
            done += 1
    counts = ", ".join(f"{name} {count}" for name, count in sorted(wished.items()) if name != "temperature")
    for number, problem in problems:
        sys.stderr.write(f"piece {number}: {problem}\n")
    good = done - len({number for number, _ in problems})
    sentence = (
        f"{done:,} pieces of random weights under random wishes ({counts}): {good:,} decode without a grammar error "
        "and obey every hard one."
    )
    return sentence, good


def goals(figures: dict[str, float]) -> str:
    """The table of what was wanted and what was found; what was not measured says so."""
    (short, long), wall = FLAT, figures.get("first note, wall", float("nan"))

    def row(wanted: str, unit: str, name: str, goal: float, *, at_most: bool = False) -> list[str]:
        found = figures.get(name)
        if found is None:
            return [wanted, "not measured", ""]
        is_reached = found <= goal if at_most else found >= goal
        return [wanted, unit.format(found), "yes" if is_reached else "no"]

    at, shell = f"at {AT:,}", "from the shell to the first note"
    clock = f"{{:.1f}} s, {wall:.1f} s on the clock"
    rows = [
        row(f"{RATIO:g} times Llama's tokens/s {at}", "{:.1f} times", f"ratio at {AT}", RATIO),
        row(f"{RATE:g} tokens/s {at}", "{:.0f} tokens/s", f"ours at {AT}", RATE),
        row(f"tokens/s at {long:,} at least {FLATNESS:g} of those at {short:,}", "{:.2f}", "flat", FLATNESS),
        row(f"{TOGETHER} together {RATIO_TOGETHER:g} times one's rate", "{:.1f} times", "together", RATIO_TOGETHER),
        row(f"{shell} {FIRST_NOTE_SECONDS:g} s of CPU time", clock, "first note", FIRST_NOTE_SECONDS, at_most=True),
        row(f"{NUM_PIECES:,} pieces of random weights obey", "{:,.0f}", "obey", NUM_PIECES),
    ]
    return table(["wanted", "found", "reached"], rows, num_words=3)


def report(args: argparse.Namespace) -> str:
    """All tables, with the machine, the date and the command."""
    vocabulary, pieces = Vocabulary.default(), []
    need = max(args.contexts) + args.tokens
    if args.shards is not None:
        folder = open_shards(args.shards)
        vocabulary, split = folder.vocabulary, folder.split("train")
        pieces = [split[number] for number in range(len(split))]
        pieces = sorted((ids for ids in pieces if len(ids) >= need), key=len)
    pieces += [encode(practice_piece(seed, num_bars=need // 60)) for seed in range(max(TOGETHER - len(pieces), 0))]
    by_context, figures = rates(args, pieces, vocabulary)
    row, figures["together"] = together(args, pieces, vocabulary)
    in_batch = table(["", "one piece, tokens/s", "eight, tokens/s", "ratio"], [row])
    cpu, wall = figures["first note"], figures["first note, wall"] = first_note(args.repeats)
    sentence, figures["obey"] = obeyed(args.pieces)
    short, long = (figures.get(f"ours at {context}") for context in FLAT)
    if short and long:
        figures["flat"] = long / short
    packages = ["torch", *(["transformers"] if any("ratio" in name for name in figures) else [])]
    contexts = " ".join(map(str, args.contexts))
    command = (
        f"python -m benchmarks.generate SHARDS --contexts {contexts} --tokens {args.tokens} --repeats {args.repeats}"
    )
    return (
        f"{machine(*packages)}, one thread; {datetime.now(UTC):%Y-%m-%d}; `{command} --pieces {args.pieces}`.\n\n"
        f"{by_context}\n\n{in_batch}\n\nFrom the shell to the first file of `meloformer generate --bars 1`: "
        f"{cpu:.1f} s of CPU time, {wall:.1f} s on the clock, imports included.\n\n{sentence}\n\n"
        f"{goals(figures)}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("shards", nargs="?", type=Path, help="what `meloformer pack` wrote; else music made by rule")
    parser.add_argument("--contexts", nargs="+", type=int, default=[FLAT[0], AT, FLAT[1]])
    parser.add_argument("--tokens", type=int, default=128, help="of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every measurement; the median counts")
    parser.add_argument("--pieces", type=int, default=NUM_PIECES, help="under random wishes")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy reads it when it is imported
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.generate", *sys.argv[1:]], one_thread)
    torch.set_num_threads(1)
    text = report(args)
    tell(text, "generate", write=args.write)


if __name__ == "__main__":
    main()

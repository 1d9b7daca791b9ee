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
from typing import Any

import numpy as np
import torch

from benchmarks.controls import broken_controls, random_controls
from benchmarks.measure import interleaved, machine, table, write_section
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

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
LLAMA = "Llama (transformers), KV cache"
MOST_BARS = 100_000
TOGETHER = 8


class Turn:
    """Some tokens of generation for pieces side by side, from where they were read to."""

    def __init__(self, decoder: Decoder, pieces: Sequence[np.ndarray], context: int, num_tokens: int) -> None:
        self.decoder = decoder
        vocabulary = decoder.model.vocabulary
        self.caches: list[PieceCache] = [decoder.read(ids[:context])[0] for ids in pieces]
        self.constraints = [Constraints(Wishes(MOST_BARS), vocabulary) for _ in pieces]
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


def llama(settings: ModelSettings, vocabulary: Vocabulary) -> Any:
    """The model that everybody has, with random weights; ``None`` where transformers is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM  # type: ignore[import-not-found]
    except ImportError:
        return None
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=settings.dim,
        intermediate_size=settings.ffn_dim,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def llama_turn(model: Any, ids: np.ndarray, context: int, num_tokens: int) -> Callable[[], object]:
    """The same number of tokens by it, the likeliest one each time; the past is read in pieces of 1,024 tokens."""
    from transformers import DynamicCache  # type: ignore[import-not-found]

    cache = DynamicCache(config=model.config)
    given = torch.from_numpy(ids[: context + num_tokens].astype(np.int64))[None]
    with torch.inference_mode():
        for start in range(0, context, 1024):
            model.model(given[:, start : min(start + 1024, context)], cache=cache, use_cache=True)

    @torch.inference_mode()
    def turn() -> None:
        for at in range(context, context + num_tokens):
            model(given[:, at : at + 1], cache=cache, use_cache=True).logits[0, -1].argmax()

    return turn


def rates(args: argparse.Namespace, pieces: list[np.ndarray], vocabulary: Vocabulary) -> tuple[str, dict[str, float]]:
    """The table of tokens a second by context, and the figures that are asked for."""
    settings = ModelSettings.of_size("small")
    torch.manual_seed(0)
    decoder, other = Decoder(MeloFormer(settings, vocabulary).eval()), llama(settings, vocabulary)
    memory: dict[int, float] = {}
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    for context in args.contexts:
        long_enough = [ids for ids in pieces if len(ids) >= context + args.tokens]
        chosen = [long_enough[turn % len(long_enough)] for turn in range(args.repeats + 1)]
        ours = [Turn(decoder, [ids], context, args.tokens) for ids in chosen]
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
             f"{memory[context]:.0f}", f"{of_llama:.0f}"]
        )  # fmt: skip
    columns = ["tokens of context", "MeloFormer, tokens/s", f"{LLAMA}, tokens/s", "ratio", "cache, MiB", "Llama's, MiB"]
    figures = {f"ours at {context}": found["MeloFormer", context] for context in args.contexts}
    if other is not None:
        figures |= {
            f"ratio at {context}": found["MeloFormer", context] / found[LLAMA, context] for context in args.contexts
        }
    return table(columns, rows), figures


def together(args: argparse.Namespace, pieces: list[np.ndarray], vocabulary: Vocabulary) -> list[str]:
    """A row: tokens a second of one piece and of eight, from their first token on."""
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
    return [f"first {num_tokens} tokens", f"{one:.0f}", f"{many:.0f}", f"**{many / one:.1f}**"]


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


def obeyed(num_pieces: int) -> str:
    """One sentence: how many pieces of random weights under random wishes obey."""
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
    return (
        f"{done:,} pieces of random weights under random wishes ({counts}): {good:,} decode without a grammar error "
        "and obey every hard one."
    )


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
    in_batch = table(["", "one piece, tokens/s", "eight, tokens/s", "ratio"], [together(args, pieces, vocabulary)])
    cpu, wall = first_note(args.repeats)
    first, last = min(args.contexts), max(args.contexts)
    flat = figures[f"ours at {last}"] / figures[f"ours at {first}"]
    packages = ["torch", *(["transformers"] if any("ratio" in name for name in figures) else [])]
    contexts = " ".join(map(str, args.contexts))
    command = (
        f"python -m benchmarks.generate SHARDS --contexts {contexts} --tokens {args.tokens} --repeats {args.repeats}"
    )
    return (
        f"{machine(*packages)}, one thread; {datetime.now(UTC):%Y-%m-%d}; `{command} --pieces {args.pieces}`.\n\n"
        f"{by_context}\n\nTokens a second at {last:,} tokens are {flat:.2f} of those at {first:,}.\n\n{in_batch}\n\n"
        f"From the shell to the first file of `meloformer generate --bars 1`: {cpu:.1f} s of CPU time, {wall:.1f} s on "
        f"the clock, imports included.\n\n{obeyed(args.pieces)}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("shards", nargs="?", type=Path, help="what `meloformer pack` wrote; else music made by rule")
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024, 8192, 16384])
    parser.add_argument("--tokens", type=int, default=128, help="of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every measurement; the median counts")
    parser.add_argument("--pieces", type=int, default=1000, help="under random wishes")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy reads it when it is imported
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.generate", *sys.argv[1:]], one_thread)
    torch.set_num_threads(1)
    text = report(args)
    sys.stdout.write(text + "\n")
    if args.write:
        write_section(PAGE, "generate", text)


if __name__ == "__main__":
    main()

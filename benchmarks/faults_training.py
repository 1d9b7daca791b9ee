"""Faults under a running training, on purpose. Run by ``make faults``.

    python -m benchmarks.faults_training kill --times 20    SIGKILL at random moments: the final weights stay the same
    python -m benchmarks.faults_training disk               a disk that is full in the middle of a checkpoint
    python -m benchmarks.faults_training damage             documents damaged under a running job

Each trains a small model on music made by rule, prints what it did and found, and ends with exit code 1 where
something was lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from meloformer.bench.music import practice_piece
from meloformer.midi.write import write_midi
from meloformer.settings import Settings
from meloformer.shards.format import Shard
from meloformer.shards.pipeline import pack_pieces

STEPS = 120
WORDS = (
    "--size", "tiny", "--seq-len", "256", "--batch-size", "2", "--steps", str(STEPS), "--device", "cpu", "--quiet",
    "--set", "model.num_layers=2", "--set", "model.dim=64", "--set", "model.ffn_dim=96",
    "--set", "training.checkpoint_every=2", "--set", "training.eval_every=30", "--set", "training.eval_rows=4",
)  # fmt: skip


def main() -> int:
    """Run one kind of fault; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("kill", "disk", "damage"))
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        folder = Path(name)
        for seed in range(20):
            write_midi(practice_piece(seed, num_bars=12), folder / f"music-{seed:02d}.mid")
        pack_pieces(sorted(folder.glob("*.mid")), folder / "shards", Settings())
        if options.kind == "kill":
            return kill(folder, options.times, rng)
        return disk(folder) if options.kind == "disk" else damage(folder)


def kill(folder: Path, times: int, rng: random.Random) -> int:
    """Kill a run again and again: at any moment after its start, or after its first new step."""
    expected = undisturbed(folder)
    run, reached, left_over, kills = folder / "killed", [], 0, 0
    while kills < times:
        process = start(folder, run, ("--set", f"training.workers={rng.choice((0, 1))}"))
        if rng.random() < 0.7:
            wait_for_step(run, process, 1 + (reached[-1] if reached else 0))
            time.sleep(rng.uniform(0, 1.5))
        else:
            time.sleep(rng.uniform(0, 6))
        process.kill()
        kills += 1
        if process.wait() == 0:
            print(f"the run ended before kill {kills}")
            break
        steps = sorted(path.parent.name for path in run.glob("checkpoints/step-*/state.json"))
        reached.append(int(steps[-1].removeprefix("step-")) if steps else 0)
        left_over += len(list(run.glob("checkpoints/.*.part")))
    start(folder, run, ()).wait()
    is_equal = final(run) == expected
    print(f"{kills} kills, {left_over} of them in the middle of a checkpoint; newest checkpoint after each: {reached}")
    print("the final weights are those of an undisturbed run, bit for bit" if is_equal else "THE WEIGHTS DIFFER")
    return 0 if is_equal else 1


def disk(folder: Path) -> int:
    """Let no file grow beyond half of a checkpoint's weights once there is one: writing fails as on a full disk."""
    expected = undisturbed(folder)
    run = folder / "full"
    process = start(folder, run, (), stderr=subprocess.PIPE)
    wait_for_step(run, process, 10)
    weights = next(run.glob("checkpoints/step-*/model.safetensors"))
    limit = weights.stat().st_size // 2
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, errors = process.communicate()
    lines = [line for line in errors.decode().splitlines() if line.strip()]
    print(f"exit code {process.returncode}: {' / '.join(lines)}")
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    start(folder, run, ()).wait()
    is_fine = process.returncode == 1 and len(lines) == 1 and all(name.startswith("step-") for name in kept)
    is_equal = final(run) == expected
    print(f"checkpoints left: {', '.join(kept)}; resumed, the final weights", "are the same" if is_equal else "DIFFER")
    return 0 if is_fine and is_equal else 1


def damage(folder: Path) -> int:
    """Turn over a byte in three documents of a shard that is being read, then in all, with a limit of four."""
    path, run = folder / "shards" / "train-00000.hid.zst", folder / "damaged"
    whole = path.read_bytes()
    shard = Shard(path)
    offsets = list(shard.offsets)
    del shard
    outcomes = []
    for documents in (range(3), range(len(offsets) - 1)):
        process = start(folder, run, ("--set", "training.max_damaged=4"), stderr=subprocess.PIPE)
        wait_for_step(run, process, 4)
        with path.open("r+b") as file:
            for number in documents:
                file.seek((offsets[number] + offsets[number + 1]) // 2)
                file.write(bytes([whole[file.tell()] ^ 0xFF]))
        _, errors = process.communicate()
        lines = [line for line in errors.decode().splitlines() if line.strip()]
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        told = [record["damaged"] for record in records if "damaged" in record]
        print(f"exit code {process.returncode}; {len(told)} documents told in metrics.jsonl, such as: {told[:1]}")
        print("  " + "\n  ".join(lines[-1:]))
        outcomes.append((process.returncode, len(told)))
        path.write_bytes(whole)
        run = folder / "damaged more"
    is_fine = outcomes[0] == (0, 3) and outcomes[1][0] == 1
    print("as it should be" if is_fine else "THIS IS WRONG")
    return 0 if is_fine else 1


def start(folder: Path, run: Path, words: Sequence[str], stderr: int | None = None) -> subprocess.Popen[bytes]:
    """Train, or go on where there is a run already."""
    resume = ["--resume"] if (run / "settings.toml").exists() else []
    command = [sys.executable, "-m", "meloformer", "train", os.fspath(folder / "shards"), "--out", os.fspath(run)]
    return subprocess.Popen([*command, *WORDS, *words, *resume], stdout=subprocess.DEVNULL, stderr=stderr)


def wait_for_step(run: Path, process: subprocess.Popen[bytes], step: int) -> None:
    """Until a run has logged a step, or has ended."""
    metrics, started = run / "metrics.jsonl", time.time()
    while process.poll() is None:
        is_new = metrics.exists() and metrics.stat().st_mtime >= started  # not what an earlier process has left
        lines = metrics.read_text("utf-8").splitlines() if is_new else []
        if lines and lines[-1].endswith("}") and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.02)


def undisturbed(folder: Path) -> dict[str, str]:
    """:func:`final` of a run that nobody disturbs."""
    if start(folder, folder / "undisturbed", ()).wait() != 0:
        sys.exit("the undisturbed run failed")
    return final(folder / "undisturbed")


def final(run: Path) -> dict[str, str]:
    """Hash of every tensor of weights and optimiser after the last step; the order of a file's header is by chance."""
    folder = run / f"checkpoints/step-{STEPS:06d}"
    return {
        f"{file}/{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in ("model", "optimizer")
        for name, tensor in load_file(folder / f"{file}.safetensors").items()
    }


if __name__ == "__main__":
    sys.exit(main())

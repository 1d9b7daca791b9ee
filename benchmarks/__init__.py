"""Speed and size side by side with peers; ``docs/benchmarks.md`` says how figures are taken."""

import os

# One core for everybody: the libraries below numpy read these when they are imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""``python -m meloformer``, which torchrun needs."""

from meloformer.cli import main

if __name__ == "__main__":
    main()

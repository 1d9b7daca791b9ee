"""The shards of the training tests."""

from tests.training.conftest import tiny_shards

__all__ = ["tiny_shards"]

"""Evidence for the defaults: each experiment is a TOML file and one command, see ``docs/experiments.md``."""

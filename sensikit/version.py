"""The version of sensikit, in every signature and manifest."""

__version__ = "0.2.0"

"""sensikit: which parameters of a multilingual translation model belong to which language."""

__version__ = "0.1.0"

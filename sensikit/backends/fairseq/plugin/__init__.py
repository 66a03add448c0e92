"""The fairseq plugin that trains what the paper compares, for `sensikit train` and for fairseq-train with --user-dir.

fairseq imports a --user-dir by its last name alone, as the top-level module `plugin`. What registers with fairseq
lies in modules that are always imported by their full names, and so is registered once, whichever way in.
"""

from __future__ import annotations

if "." not in __name__:
    import sensikit.backends.fairseq.plugin.task  # noqa: F401  registers the task, the criterion and the architectures

"""Speed and memory, as ratios measured side by side in one run: `make bench`."""

from __future__ import annotations

import re
from pathlib import Path


def peak(*, anew: bool = False) -> int:
    """Return the most bytes that this process had in memory, `anew` from now on; of it alone, where ru_maxrss is also
    of the process that began it."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024

"""Where a model is computed."""

from __future__ import annotations

import re

import torch

from sensikit.errors import OptionError


def pick_device(device: str) -> torch.device:
    """Return the device that is asked for; "auto" is the first GPU where there is one.

    Raises:
        OptionError: if it does not exist.
    """
    gpu = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if gpu else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise OptionError("--device", f"{device!r} is unknown", "give auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and (not gpu or (torch.device(device).index or 0) >= torch.cuda.device_count()):
        raise OptionError("--device", f"there is no {device} on this machine", "give --device cpu or auto")
    return torch.device(device)

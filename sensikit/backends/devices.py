"""Where a model is computed."""

from __future__ import annotations

import os
import re

import torch

from sensikit.errors import OptionError


def pick_device(device: str) -> torch.device:
    """Return the device that is asked for; "auto" is a GPU where there is one: of a launcher's processes, each its own.

    Raises:
        OptionError: if it does not exist.
    """
    gpu = torch.cuda.is_available()
    if device == "auto":
        local = os.environ.get("LOCAL_RANK")
        if local and not re.fullmatch("[0-9]{1,6}", local):
            raise OptionError("environment", f"LOCAL_RANK is {local!r:.30}", "a launcher sets it to 0, say; unset it")
        own = f"cuda:{int(local) % torch.cuda.device_count()}" if local and gpu else "cuda"
        return torch.device(own if gpu else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", device):
        raise OptionError("--device", f"{device!r} is unknown", "give auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and (not gpu or (torch.device(device).index or 0) >= torch.cuda.device_count()):
        raise OptionError("--device", f"there is no {device} on this machine", "give --device cpu or auto")
    return torch.device(device)

"""Several processes that compute an update together: counts are those of all of them."""

from pathlib import Path

import pytest
import torch

from tests.support import training_system

FLAGS = ("--dropout", "0", "--max-tokens", "60", "--tokens-per-update", "60")


def worker(rank: int, data: str, where: str) -> None:
    """One of two processes: half of an update, then the sum of the gradients, as fairseq's trainer makes it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    # the tokens of an update are those of both: each cuts the batches that one process alone would cut of half as many
    system = training_system.build(Path(data), "cd", *FLAGS, "--tokens-per-update", "120")
    samples = system.updates()
    _, size, _ = training_system.step(system, samples[rank], ignore=False)
    gradient, sizes = training_system.gradient(system), torch.tensor(float(size))
    torch.distributed.all_reduce(gradient)
    torch.distributed.all_reduce(sizes)
    # a process that has run out of data takes part all the same
    _, empty, _ = training_system.step(system, samples[2], ignore=rank == 1)
    alone = training_system.gradient(system)
    torch.distributed.all_reduce(alone)
    if rank == 0:
        torch.save({"both": gradient / sizes, "alone": alone / empty}, f"{where}/gradient.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_each_term_is_divided_by_its_tokens_over_all_processes(tiny_data, tmp_path):
    torch.multiprocessing.spawn(worker, args=(str(tiny_data), str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "gradient.pt")
    system = training_system.build(tiny_data, "cd", *FLAGS)
    samples = system.updates()
    _, size, _ = training_system.step(system, {"parts": samples[0]["parts"] + samples[1]["parts"]})
    assert torch.allclose(found["both"], training_system.gradient(system, size), rtol=1e-4, atol=1e-6)
    _, size, _ = training_system.step(system, samples[2])
    assert torch.allclose(found["alone"], training_system.gradient(system, size), rtol=1e-4, atol=1e-6)

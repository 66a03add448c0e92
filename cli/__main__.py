"""`python -m sensikit_cli`, for torchrun: `torchrun --nproc-per-node 4 -m sensikit_cli train …`."""

from .main import main

main()

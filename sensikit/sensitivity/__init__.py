"""S(θ,B_l): its batches, its plan, its measurement (Eq. 2, 3), and the exact ablation that audits it (Eq. 1)."""

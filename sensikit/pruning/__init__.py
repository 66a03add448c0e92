"""From a score to an order, a mask, a sweep of pruned systems and its ledger."""

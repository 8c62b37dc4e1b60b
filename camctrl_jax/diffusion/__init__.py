"""Flow matching, conditions, guidance and sampling: pure functions over arrays."""

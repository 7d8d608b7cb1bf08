"""The composition root: configuration to objects; supervisor, worker, device host."""

"""The worker's side of a device: the link to its host, its queue, its health."""

"""What is told over plain HTTP: metrics, and whether the daemon lives and is ready."""

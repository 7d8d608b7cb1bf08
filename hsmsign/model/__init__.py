"""Plain values used everywhere: algorithms, names, errors. Imports nothing of ours."""

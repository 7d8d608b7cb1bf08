"""What a daemon does with a key, measured from the caller's side: `hsmsign bench`. It stands on the client alone."""

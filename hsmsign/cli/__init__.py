"""The hsmsign command."""

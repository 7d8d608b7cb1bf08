"""The database: keys and their versions."""

"""How the tables came to be, step by step."""

HEAD = "0005"
"""The newest revision in `versions`: a database that is there needs no migration, nor the tool for it."""

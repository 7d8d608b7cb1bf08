"""The pipeline of one signature: resolve, admit, sign."""

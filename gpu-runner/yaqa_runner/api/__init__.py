"""The Python API. Its modules import nothing heavy until they are called."""

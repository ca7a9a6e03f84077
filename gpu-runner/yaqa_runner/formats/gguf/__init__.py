"""GGUF, which llama.cpp loads."""

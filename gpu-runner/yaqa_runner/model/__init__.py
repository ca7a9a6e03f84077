"""The source model: its snapshot on disk, loading, and which of its linears are quantized."""

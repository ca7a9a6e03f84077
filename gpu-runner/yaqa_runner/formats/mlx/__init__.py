"""MLX folders, which mlx-lm and LM Studio load on Apple's processors."""

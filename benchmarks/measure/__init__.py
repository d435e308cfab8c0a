"""What the benchmarks share: the scene, the same attack written plainly, and how figures are told."""

"""Locked environments: targets, locks, the builder, patches, CUDA toolkits, packs and containers."""

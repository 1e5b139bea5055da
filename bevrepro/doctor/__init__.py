"""Judging a machine: pure functions from `Machine` to findings, no reading and no printing."""

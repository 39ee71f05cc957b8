"""Benchmarks: ratios to a baseline timed in the same run, never in a test."""

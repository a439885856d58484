"""Compiled kernels: they paint pictures and sum sound. They know numpy buffers and nothing of engine."""

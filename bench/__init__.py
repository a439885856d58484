"""The benchmarks: one module per question, each a ratio against peers measured in the same run.

Run one with `python -m bench.compose` (`audio`, `startup`, `growth`, …); `--smoke` runs it once at its smallest size.
All but `kernel` know the engine only by its command line, as its users do.
"""

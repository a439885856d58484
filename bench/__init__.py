"""The benchmarks: one module per question, each a ratio against peers measured in the same run; `trees` has no peer.

Run one with `python -m bench.compose` (`audio`, `startup`, `growth`, …); `--smoke` runs it once at its smallest size.
`kernel`, `effect` and `trees` call what they measure; all others know the engine by its command line, as its users do,
and `jobs` renders by a call besides, to compare with.
"""

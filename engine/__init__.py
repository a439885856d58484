"""Mashtun's engine: RenderTrees and media in, mixed pictures and sound out. It knows nothing of HTTP."""

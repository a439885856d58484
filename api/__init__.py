"""The doors of Mashtun: the command line and the HTTP dialects. Each converts and calls the engine."""

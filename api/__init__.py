"""The doors of Mashtun: the command line now, the HTTP dialects as they come. Each converts and calls the engine."""

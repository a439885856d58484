"""Movie Masher's dialect: its documents, and the servers that its browser client talks to."""

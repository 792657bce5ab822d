"""Simulated targets: for the demo, for rehearsals, and for the project's own tests."""

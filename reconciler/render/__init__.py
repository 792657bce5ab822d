"""What people and programs see: plans, events and results as terminal text, JSON lines and drawings."""

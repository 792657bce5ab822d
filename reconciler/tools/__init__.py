"""What is used by hand rather than planned."""

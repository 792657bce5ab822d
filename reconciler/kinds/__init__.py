"""What users write: one file for each kind, found by itself."""

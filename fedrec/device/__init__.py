"""What may see a person."""

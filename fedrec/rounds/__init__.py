"""What sees only updates and totals."""

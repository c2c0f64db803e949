"""What is in any model file, told without running it."""

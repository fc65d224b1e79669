"""What runs on the board: the standard library, numpy and one runtime."""

"""What networks cost, what they see and how they train; the paper's numbers to compare with."""

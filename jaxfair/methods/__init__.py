"""What is learned: the loss of one example."""

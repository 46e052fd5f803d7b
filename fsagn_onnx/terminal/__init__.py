"""What is printed on a terminal: bars, stages, and the words of every command."""

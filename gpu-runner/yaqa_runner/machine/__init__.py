"""What the process asks of the machine it runs on: cores, memory, and whether they ran out."""

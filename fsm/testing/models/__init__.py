"""Models of the machine for the model checkers spin and TLC, generated from its table."""

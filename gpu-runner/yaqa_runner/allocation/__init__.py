"""Types for every linear of a recipe that mixes them, within a budget."""

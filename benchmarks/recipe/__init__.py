"""What of the recipe can be seen at a size that trains in minutes: paired runs, several seeds."""

"""Questions about a trainer that are answered without training it."""

"""What is compiled: the state, the user's step with what surrounds it, and its programs."""

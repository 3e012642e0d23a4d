"""The embedded nano model: what it can say, how that sounds, and its checkpoint."""

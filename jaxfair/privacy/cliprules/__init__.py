"""Rules of the clip: how much of a gradient is kept, and what else a draw is asked."""

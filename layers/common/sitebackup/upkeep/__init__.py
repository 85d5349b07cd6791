"""What runs by itself: the sweep, the clean-up, and the decisions of retention."""

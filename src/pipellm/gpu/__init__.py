"""The devices behind the copy seam."""

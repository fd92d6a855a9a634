"""What the site needs of Sphinx that Sphinx has not."""

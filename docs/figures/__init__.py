"""The guide's figures: `python -m docs.figures` draws them all into docs/images/guide/."""

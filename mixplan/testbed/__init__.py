"""A mixture of linear-regression tasks whose learner is known in closed form (arXiv 2605.29548)."""

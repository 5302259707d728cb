"""mixplan: plan size and mixture of a pretraining run so that rare skills are learned too."""

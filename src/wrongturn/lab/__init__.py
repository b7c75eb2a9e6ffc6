"""Train and evaluate small reasoners from scratch, where a checker knows the first wrong token (extra: ``[lab]``)."""

"""`segkc-deploy label-next`: which unlabeled images a person should label next, from where two networks disagree."""

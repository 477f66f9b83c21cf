"""Training LocateAnything: from records or generated scenes to a checkpoint in the published layout."""

"""The demo model: a small LocateAnything trained from scratch on generated scenes, from nothing to the model card."""

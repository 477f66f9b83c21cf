"""One module or folder per model, each behind `groundlink.backend.Backend`."""

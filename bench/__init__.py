"""Every claim of speed and accuracy, measured side by side with the rivals: `python -m bench`."""

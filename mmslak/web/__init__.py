"""A page in the browser that shows predictions and effective receptive fields."""

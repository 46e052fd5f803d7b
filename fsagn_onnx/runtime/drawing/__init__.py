"""Pictures of explanations: an image and the areas of its filters (numpy and OpenCV only)."""

"""An HTTP service for artifacts: images in, masks out, and a page to try it in a browser."""

"""Finding out what a folder of one's own images and labels holds."""

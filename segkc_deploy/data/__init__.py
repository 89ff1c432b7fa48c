"""Images, masks and the lists of them: what training, export, evaluation and the device all read the same way."""

"""Every byte of media passes here: decoding, encoding, and pictures of videos. Knows nothing of datasets."""

"""FFmpeg's numbers for scaling and colour, which reading and writing share."""

AREA, BICUBIC, FULL_CHROMA, ACCURATE = 0x20, 0x4, 0x2000, 0x40000  # flags of swscale
BT709, UNSPECIFIED = 1, 2  # codes of H.273

"""From a clip with cameras to 3-D: depth maps, one coloured cloud, and the files that others read."""

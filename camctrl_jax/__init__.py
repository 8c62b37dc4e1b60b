"""CameraCtrl II in JAX: camera-controlled video diffusion for dynamic scenes."""

__version__ = "0.1.0"

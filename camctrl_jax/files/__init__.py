"""Files as this package writes and reads them: whole or not at all, JSON, safetensors; whatever they hold."""

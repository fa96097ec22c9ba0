"""Where arrays live: the devices of this process."""

__all__: list[str] = []

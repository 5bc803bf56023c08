"""What the demo ships: photographs under free licences, and a small trained network."""

__all__: list[str] = []

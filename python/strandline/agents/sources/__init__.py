"""Adapters for other libraries' streams, one module each. Each needs its library; the extra of its name installs it."""

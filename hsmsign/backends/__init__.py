"""Devices, inside their host: the only place that loads a vendor's library and knows a PIN."""

"""The compiled modules: _host for the device host, _front for the front worker."""

"""The promises of the gateway, tested on real sockets with real keys."""

"""How names of header fields are read by those who do not keep them apart."""

_FOLD = bytes(byte if chr(byte).isalnum() and byte < 128 else ord("-") for byte in range(256))


def folded_name(name: bytes) -> bytes:
    """The name in lower case, whatever is neither letter nor digit made a hyphen.

    Servers that hand fields on as environment variables (RFC 3875 §4.1.18) make an underscore of each such character:
    names that fold alike are one field to them.
    """
    return name.lower().translate(_FOLD)

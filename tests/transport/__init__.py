"""The transport against honest, strange and hostile servers."""

"""Our own engines behind an OpenAI-compatible API (extra ``serve``): :func:`wrongturn.server.serve.serve`."""

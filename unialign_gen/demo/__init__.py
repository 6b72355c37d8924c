"""The page: prompts of every kind in a browser, and the same actions as named endpoints; `server.serve` serves it."""

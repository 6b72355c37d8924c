"""The page of this project, as a Space starts it; `unialign-gen demo` is the same."""

from unialign_gen.demo.server import serve

if __name__ == "__main__":
    serve()

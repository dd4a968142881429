"""`python -m dstrain`, the same as `dstrain`."""

from dstrain.cli.app import app

if __name__ == "__main__":
    app(prog_name="dstrain")

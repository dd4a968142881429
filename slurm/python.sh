# The batch scripts begin with this: the Python of their host and of their tasks, or a word on what is wrong with it.
python=${DSTRAIN_PYTHON:-python}
if ! "$python" -c 'import pydantic, yaml'; then
    echo "dstrain: '$python' on $(hostname) cannot run dstrain, see above (DSTRAIN_PYTHON is '${DSTRAIN_PYTHON-}'): activate its" \
        "environment before sbatch, or export DSTRAIN_PYTHON=/path/to/python" >&2
    exit 2
fi

# The batch scripts begin with this: the Python of their host and of their tasks, or a word on what is wrong with it.
python=${DSTRAIN_PYTHON:-python}
if ! "$python" -c 'import pydantic, yaml'; then
    echo "dstrain: '$python' on $(hostname) cannot run dstrain, see above (DSTRAIN_PYTHON is '${DSTRAIN_PYTHON-}'): export" \
        "DSTRAIN_PYTHON=/path/to/python before sbatch, or unset it and activate its environment" >&2
    exit 2
fi

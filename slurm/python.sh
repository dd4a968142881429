# Sourced by the batch scripts: sets the Python of the batch host and of the tasks, or exits with the reason why it cannot run.
python=${DSTRAIN_PYTHON:-python}
if ! "$python" -c 'import pydantic, yaml'; then
    echo "dstrain: '$python' on $(hostname) cannot run dstrain, see above (DSTRAIN_PYTHON is '${DSTRAIN_PYTHON-}'): export" \
        "DSTRAIN_PYTHON=/path/to/python before sbatch, or unset it and activate its environment" >&2
    exit 2
fi

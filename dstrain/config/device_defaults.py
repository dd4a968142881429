"""What some null keys of `machine` stand for, by the type of the device on which a run begins. Pure data."""

CPU_TOKENS = 8192
"""`micro_batch_tokens` where there is no GPU memory to fill: larger micro-batches are not faster there."""

OVERHEADS = {"cpu": 128, "cuda": 4096}
"""`micro_batch_overhead`: padded tokens that cost as much as one more micro-batch. A CPU is as fast with 64 or 256. On a GPU it
is an estimate: launching the kernels of a micro-batch takes the host about 17 ms (counted: 2,400 to 2,800 kernels), a padded
token 4 to 5 µs."""

BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""`evaluation_tokens`. On a GPU a generated token keeps the host busy for some milliseconds whatever the number of rows, so that
the number of batches decides; estimated from counted kernels."""

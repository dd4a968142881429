# Sourced by slurm/train.sbatch: the size of its step, when the allocation ends, and what runs beside the step.

tasks=${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
unset SLURM_CPUS_PER_GPU # with it srun would request GPUs even where there are none; --cpus-per-task replaces it

# Fewer tasks (--ntasks) than the nodes can take leave whole nodes spare, until others are lost.
num_nodes=$SLURM_JOB_NUM_NODES
if [ $((${SLURM_NTASKS:-0} % tasks)) = 0 ] && [ "${SLURM_NTASKS:-0}" -ge "$tasks" ]; then
    num_nodes=$((SLURM_NTASKS / tasks < num_nodes ? SLURM_NTASKS / tasks : num_nodes))
fi
[ "$num_nodes" = "$SLURM_JOB_NUM_NODES" ] ||
    echo "dstrain: trains on $num_nodes of $SLURM_JOB_NUM_NODES nodes (--ntasks=$SLURM_NTASKS), the others are spare" >&2
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n "$num_nodes" | paste -sd,)

# the end of the allocation, if Slurm does not set it; for an array squeue may list several jobs, of which one has this id
ends=$(squeue -h -j "$SLURM_JOB_ID" -o '%A %e' | sed -n "s/^$SLURM_JOB_ID //p")
export SLURM_JOB_END_TIME=${SLURM_JOB_END_TIME:-${ends:+$(date +%s -d "$ends" 2>/dev/null)}}

helpers=()
start_helpers() { # the process id of srun, and the arguments of launch/train.py; $nodes are those of the ranks
    "$python" -m dstrain.slurm.evaluation_jobs watch -- "${@:2}" & # returns at once unless machine.evaluation_job is set
    helpers=($!) && disown # otherwise bash reports its end in the log
    "$python" -m dstrain.slurm.lost_nodes watch --step "$1" --nodes "$nodes" -- "${@:2}" &
    helpers+=($!) && disown
}
end_helpers() { kill "${helpers[@]}" 2>/dev/null; }

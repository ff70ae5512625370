"""Base model (only where none is given; on the CPU), training, and sampling on one device per shard."""

IS_BASE_TRAINED = CONFIG.enhancer.base_model == "train"
BASE = ROOT / "base/manifest.json" if IS_BASE_TRAINED else []
TRAIN_LAUNCH = stages.launch_command(
    CONFIG.scheduling.enhancer_train_gpus,
    CONFIG.scheduling.enhancer_train_nodes,
    is_on_cluster=workflow.remote_exec,
)


rule enhancer_base:
    input:
        crops=rules.crop.output.manifest,
    output:
        manifest=ROOT / "base/manifest.json",
    log:
        ROOT / "logs/enhancer_base.log",
    benchmark:
        ROOT / "benchmarks/enhancer_base.tsv"
    threads: CORES
    params:
        key=stage_key(stages.BASE, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m enhancer base --config {params.config} --replace --log {log}"


rule enhancer_train:
    input:
        crops=rules.crop.output.manifest,
        base=BASE,
    output:
        manifest=ROOT / "enhancer/manifest.json",
    log:
        ROOT / "logs/enhancer_train.log",
    benchmark:
        ROOT / "benchmarks/enhancer_train.tsv"
    retries: RETRIES
    threads: CORES
    resources:
        **stages.node_resources(CONFIG.scheduling.enhancer_train_nodes),
        gpu=CONFIG.scheduling.enhancer_train_gpus,
    params:
        key=stage_key(stages.TRAIN, RUN),
        config=CONFIG_FILE,
    shell:
        "threads={threads}; exec {TRAIN_LAUNCH} enhancer train --config {params.config} --replace --log {log}"


rule enhancer_sample:
    input:
        crops=rules.crop.output.manifest,
        plan=rules.degrade_plan.output.table,
        degraded=rules.degrade_apply.output.manifest,
        base=BASE,
        enhancer=rules.enhancer_train.output.manifest,
    output:
        manifest=ROOT / "samples/samples-{shard}.json",
    log:
        ROOT / "logs/enhancer_sample-{shard}.log",
    benchmark:
        ROOT / "benchmarks/enhancer_sample-{shard}.tsv"
    retries: RETRIES
    resources:
        gpu=1,
        runtime=lambda wildcards, input: sample_minutes(
            CONFIG, Path(input.plan), int(wildcards.shard)
        ),
    params:
        key=stage_key(stages.SAMPLE, RUN),
        config=CONFIG_FILE,
    shell:
        "exec python -m runtime lease --gpus {resources.gpu} --jobs-per-gpu {CONFIG.enhancer.sample.jobs_per_gpu} -- "
        "python -m enhancer sample --config {params.config} --shard {wildcards.shard} --replace --log {log}"

"""One page that shows what was built."""


rule report:
    input:
        annotations=rules.annotation_import.output.manifest,
        dataset=rules.shards.output.manifest,
        enhancer=rules.enhancer_train.output.manifest,
        scores=rules.afine_evaluate.output.manifest,
    output:
        page=report(ROOT / "report.html", caption="../report/page.rst"),
        manifest=ROOT / "report.manifest.json",
    log:
        ROOT / "logs/report.log",
    benchmark:
        ROOT / "benchmarks/report.tsv"
    params:
        key=stage_key(stages.REPORT, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m report write --config {params.config} --replace --log {log}"

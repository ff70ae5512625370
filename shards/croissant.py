"""`croissant.json`: machine-readable description of the dataset, after the Croissant 1.0 format.

The shards are listed with their digests; two record sets, `tests` and `splits`, can be read
with any Croissant reader, from `labels.parquet` and `splits.parquet` beside the shards.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime.atomic import sha256_file, write_json
from shards.config import DatasetConfig
from shards.summary import Summary

_TABLES = ("labels.parquet", "splits.parquet")
# the context that the Croissant 1.0 specification prescribes, term by term
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(
    path: Path, settings: DatasetConfig, summary: Summary, digests: Mapping[str, str]
) -> None:
    """Write the metadata beside the shards.

    Args:
        path: `dataset/croissant.json`.
        settings: section `dataset`.
        summary: statistics of the dataset.
        digests: SHA-256 of each shard; shards and the two tables lie beside `path`.
    """
    shards = sorted(digests)
    tables = {name: sha256_file(path.parent / name) for name in _TABLES}
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": settings.name,
        "alternateName": settings.title,
        "description": _description(settings, summary),
        "license": settings.licence_url or settings.licence,
        "version": settings.version,
        "distribution": [
            *(_file(path.parent / tar, "application/x-tar", digests[tar]) for tar in shards),
            *(
                _file(path.parent / name, "application/x-parquet", digest)
                for name, digest in tables.items()
            ),
            _members("annotations", "*.json", "application/json", shards),
            _members("images", "*.png", "image/png", shards),
        ],
        "recordSet": [_tests(), _splits()],
    }
    optional = {
        "url": settings.homepage,
        "citeAs": settings.citation,
        "datePublished": settings.date_published,
        "creator": [{"@type": "sc:Organization", "name": name} for name in settings.creators],
    }
    described.update({name: value for name, value in optional.items() if value})
    write_json(path, described)


def _description(settings: DatasetConfig, summary: Summary) -> str:
    warning = "SYNTHETIC labels from a simulated observer, not from people. "
    tests = sum(counts["tests"] for counts in summary.labels.values())
    references = sum(counts["references"] for counts in summary.labels.values())
    facts = (
        f"{references} reference photographs with {tests} diffusion-made test images, each "
        "labelled worse than, similar to, or better than its reference."
    )
    text = f"{warning if summary.is_synthetic else ''}{facts}"
    return f"{text} {settings.description}".strip()


def _file(path: Path, encoding: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _members(name: str, pattern: str, encoding: str, tars: Iterable[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": [{"@id": tar} for tar in tars],
        "encodingFormat": encoding,
        "includes": pattern,
    }


def _tests() -> dict[str, Any]:
    kinds = {
        **dict.fromkeys(("test_id", "ref_id", "split", "shard", "policy"), "sc:Text"),
        **dict.fromkeys(("label", "n_worse", "n_similar", "n_better", "n_votes"), "sc:Integer"),
        "is_synthetic": "sc:Boolean",
    }
    about = "One record per test image; label is -1 worse, 0 similar, 1 better than the reference."
    return _record_set("tests", about, "labels.parquet", kinds)


def _splits() -> dict[str, Any]:
    names = ("crop_id", "photo_id", "split", "shard")
    about = "Which split and shard each reference is in; the split is by photograph."
    return _record_set("splits", about, "splits.parquet", dict.fromkeys(names, "sc:Text"))


def _record_set(
    name: str, description: str, file: str, columns: Mapping[str, str]
) -> dict[str, Any]:
    """Describe a table: one field for each column."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "dataType": kind,
            "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
        }
        for column, kind in columns.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": {"@id": f"{name}/{next(iter(columns))}"},
        "field": fields,
    }

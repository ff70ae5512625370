"""Layout of `report.json`: what an import found, for people and for the run's report.

    {
      "study": str, "layout": str, "is_synthetic": bool,
      "votes":  {"n": int, "n_rejected": int, "n_excluded": int, "n_repeats": int,
                 "worse": int, "similar": int, "better": int},
      "pairs":  {"n": int, "n_labelled": int, "n_outliers": int,
                 "votes_per_pair": {"3": int, ...}, "outlier_reasons": {reason: int}},
      "labels": {"worse": int, "similar": int, "better": int},
      "policy": {"min_votes": int, "tie_policy": str, "exclude_raters": [str]},
      "problems": {reason: {"count": int, "is_rejected": bool, "meaning": str,
                            "examples": [{"where": str, "detail": str}, ...at most 20]}},
      "agreement": {"n_units": int, "alpha_nominal": INTERVAL, "alpha_ordinal": INTERVAL,
                    "fleiss_kappa": float|null, "gwet_ac1": float|null,
                    "percent_agreement": float|null,
                    "percent_agreement_by_class": {"worse": float|null, ...}},
      "raters": null | {"n": int, "n_flagged": int, "rows": [RATER, ...]},
      "raters_absent_because": str | null,
      "what_if": null | {"excluded": [rater_id], "before": LABELS, "after": LABELS,
                         "n_changed": int},
      "dawid_skene": null | {"iterations": int, "is_converged": bool, "class_shares": LABELS,
                             "n_ties_resolved": int},
      "scales": null | {"model": str, "ties": str, "n_contents": int,
                        "n_disconnected": int, "contents": [CONTENT, ...]}
    }

    INTERVAL = {"value": float|null, "low": float|null, "high": float|null,
                "confidence": float, "replicates": int}
    LABELS = {"worse": int|float, "similar": .., "better": .., "outlier": .. (what_if only)}
    RATER = {"rater_id": str, "n_votes": int, "worse_share", "similar_share", "better_share": float,
             "agreement": float|null, "agreement_low", "agreement_high": float|null,
             "n_compared": int, "median_time_s": float|null, "too_fast_share": float|null,
             "time_outlier_share": float|null, "longest_run": int, "run_p": float,
             "entropy_bits": float, "left_share": float|null, "side_p": float|null,
             "n_repeats": int, "repeat_agreement": float|null, "repeat_low", "repeat_high",
             "dawid_skene_accuracy": float|null, "flags": [str]}
    CONTENT = {"ref_id": str, "n_items": int, "n_votes": int, "n_missing_pairs": int,
               "is_connected": bool, "is_strongly_connected": bool}

Values are rounded to 12 digits after the point at most; the file holds no times and no paths
of the machine, so the same votes give the same bytes.
"""

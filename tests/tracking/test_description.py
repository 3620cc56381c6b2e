from ganseg_dist.config import override
from ganseg_dist.tracking.description import metric_name, run_document, run_params, run_tags


def test_run_params_flattens_config(run):
    config = override(run.config(), {"train.ema": None})
    params = run_params(config)
    assert params["data.modalities"] == "t1, flair"
    assert params["system.gan"] == "true"
    assert params["system.widths"] == "4, 8"
    assert params["data.augment.flip"] == "0.5"
    assert params["train.keep"] == "best"
    assert run_params(override(config, {"train.ema": 0.99}))["train.ema"] == "0.99"
    assert not {"data", "train.ema"} & set(params)


def test_metric_name_replaces_characters_invalid_in_mlflow():
    assert metric_name("test/wt/dice/mean") == "test/wt/dice/mean"
    assert metric_name("dice, 5%") == "dice_ 5_"
    assert len(metric_name("x" * 300)) == 250
    assert metric_name("wt/dice/../../x alone") == "wt/dice/_/_/x alone"
    assert metric_name("recall//a/./") == "recall/_/a/_/_"


def test_run_params_truncates_values_to_mlflow_limit(run):
    many = [f"modality{index}" for index in range(1000)]
    params = run_params(override(run.config(), {"data.modalities": many}))
    assert max(len(value) for value in params.values()) == 6000


def test_run_tags_identify_data_and_code(run):
    tags = run_tags(run)
    assert tags["ganseg.phantom"] == "true"
    assert tags["ganseg.version"] == "0.1.0"
    assert tags["mlflow.source.git.commit"] == "0123456789ab"
    assert tags["ganseg.dirty"] == "true"
    data = run.read("data.json")
    data["cases"][0]["content"] = "ac"
    run.write("data.json", data)
    assert run_tags(run)["ganseg.data"] != tags["ganseg.data"]


def test_run_tags_omit_commit_of_installed_package(run):
    run.describe(commit=None)
    assert not {"mlflow.source.git.commit", "ganseg.dirty"} & set(run_tags(run))


def test_run_document_omits_local_paths(run):
    finding = {"check": "x", "severity": "error", "case": "b", "file": "/ward/7/b.nii", "problem": "p", "remedy": "r"}
    cases = [{"id": "a", "patient": "a", "site": "s", "content": "ab"}]
    run.write("data.json", run.read("data.json") | {"cases": cases, "excluded": [finding]})
    sent = run_document(run, "data.json")
    assert sent["cases"] == cases
    assert sent["excluded"] == [{name: value for name, value in finding.items() if name != "file"}]
    assert "/ward" not in f"{sent} {run_tags(run)}"

"""The private names of Ray that compat/ray.py touches; what they do is tested with clusters in tests/cluster."""

from inspect import signature

from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

from ganseg_dist.compat.ray import is_startup_timeout, set_tuner_callbacks, uploaded_files


def test_ray_has_private_names_of_elastic_trainer():
    assert callable(TorchTrainer._initialize_and_run_controller)
    assert callable(ElasticScalingPolicy._maybe_send_resource_request)
    assert list(signature(ElasticScalingPolicy._count_possible_workers).parameters) == ["self", "reserved_resources"]
    assert not signature(ElasticScalingPolicy.make_decision_for_non_running_worker_group).parameters.keys() - {"self"}
    running = signature(ElasticScalingPolicy.make_decision_for_running_worker_group)
    assert list(running.parameters) == ["self", "worker_group_state", "worker_group_status"]
    scaling = ScalingConfig(num_workers=(1, 2), resources_per_worker={"CPU": 3})
    assert scaling._resources_per_worker_not_none["CPU"] == 3
    assert (scaling.min_workers, scaling.max_workers) == (1, 2)


def test_is_startup_timeout_recognizes_timeout():
    assert is_startup_timeout(WorkerGroupStartupTimeoutError(2))
    assert not is_startup_timeout(RuntimeError("2"))


def test_set_tuner_callbacks_replaces_callbacks():
    tuner, callback = tune.Tuner(print), tune.Callback()
    set_tuner_callbacks(tuner, [callback])
    assert tuner._local_tuner.get_run_config().callbacks == [callback]


def test_uploaded_files_honour_ignore_files(tmp_path, monkeypatch):
    for file, text in {"a.py": "", "b.npy": "", "c.csv": "", ".gitignore": "*.npy", ".rayignore": "*.csv"}.items():
        (tmp_path / file).write_text(text)

    def names():
        return {path.name for path in uploaded_files(tmp_path)}

    assert names() == {"a.py", ".gitignore", ".rayignore"}
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert names() == {"a.py", "b.npy", ".gitignore", ".rayignore"}

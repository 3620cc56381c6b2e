import time

from ganseg_dist.tracking.mlflow_tracker import SystemMetrics


def test_system_metrics_samples_cpu_and_memory_until_close():
    samples: list[dict[str, float]] = []
    sampled = SystemMetrics(lambda sample: samples.append(dict(sample)), seconds=0.2)
    deadline = time.monotonic() + 10
    while len(samples) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    before = len(samples)
    sampled.close()
    assert before >= 2
    assert len(samples) == before + 1
    for sample in samples:
        assert 0 <= sample["system/cpu_utilization_percentage"] <= 100
        assert 0 < sample["system/system_memory_usage_percentage"] <= 100

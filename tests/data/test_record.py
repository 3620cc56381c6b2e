from tests.data.records import data_record


def test_fingerprint_depends_on_content_only():
    data = data_record(("a", "11"), ("b", "22"))
    moved = data.model_copy(update={"root": "/elsewhere", "cases": data.cases[::-1]})
    assert moved.fingerprint == data.fingerprint
    assert data_record(("a", "11")).fingerprint != data.fingerprint
    assert data_record(("a", "11"), ("b", "23")).fingerprint != data.fingerprint

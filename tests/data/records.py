"""Data records of a cohort without files."""

from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.record import CaseRecord, DataRecord


def data_record(*cases: tuple[str, str]) -> DataRecord:
    """The record of a phantom whose cases are given as (id, content hash)."""
    return DataRecord(
        root="/ward/7", layout="brats", phantom=True, synthetic=False, modalities=("t1",), regions=("wt",), channels=(),
        labels=BRATS, otherwise_labelled=0, excluded=(),
        cases=tuple(CaseRecord(id=name, patient=name, site="s", content=content) for name, content in cases),
    )  # fmt: skip

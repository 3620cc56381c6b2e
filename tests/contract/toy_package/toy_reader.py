"""A third-party layout: <patient>.scan.nii.gz, a FLAIR image, beside <patient>.truth.nii.gz, its binary mask."""

from ganseg_dist.data.cohort import UNKNOWN_SITE, Case, Source
from ganseg_dist.data.readers.shared.base import Reader


class ToyPairs(Reader):
    """Two files a patient."""

    name = "toy_pairs"
    describes = "<patient>.scan.nii.gz beside <patient>.truth.nii.gz"

    def recognises(self, root):
        return root.is_dir() and any(root.glob("*.scan.nii.gz"))

    def cases(self, root, scheme=None):
        patients = sorted(file.name.removesuffix(".scan.nii.gz") for file in root.glob("*.scan.nii.gz"))
        return tuple(
            Case(
                patient,
                patient,
                UNKNOWN_SITE,
                {"flair": Source((root / f"{patient}.scan.nii.gz",))},
                Source((root / f"{patient}.truth.nii.gz",)),
            )
            for patient in patients
        )


READER = ToyPairs()

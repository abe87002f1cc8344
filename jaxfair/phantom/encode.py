"""One picture to the bytes of a DICOM file; the way back is `decode`."""

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

__all__ = ["BITS", "dicom_bytes"]

BITS = {"jpeg8": 8, "plain8": 8, "plain12": 12, "plain16": 16}
"""Encodings and the bits that they store; "plain" is uncompressed."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def dicom_bytes(
    picture: np.ndarray,
    *,
    encoding: str,
    inverted: bool,
    image_id: str,
    sex: str,
    age: str,
    view: str,
    remark: str,
) -> bytes:
    """Writes a chest film that `decode.decode` turns back into `picture`.

    Args:
      picture: (h, w) float in [0, 1].
      encoding: a key of `BITS`; 12 and 16 bits come with a window, 16 with a rescale too.
      inverted: stored as MONOCHROME1, where low values are bright.
      image_id: PatientID, as in RSNA's files, and source of the instance UID.
      sex: PatientSex.
      age: PatientAge as it is to stand there, also a plain number, which the standard forbids
        and real files hold.
      view: ViewPosition.
      remark: PatientName (its first word) and ImageComments.
    """
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        JPEGBaseline8Bit if encoding == "jpeg8" else ExplicitVRLittleEndian
    )
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[image_id])
    dataset.Modality, dataset.BodyPartExamined = "CR", "CHEST"
    dataset.PatientID, dataset.PatientSex, dataset.ViewPosition = image_id, sex, view
    dataset.PatientName, dataset.ImageComments = remark.split(":")[0], remark
    dataset.add(pydicom.DataElement(0x00101010, "AS", age, validation_mode=pydicom.config.IGNORE))
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    _add_pixels(dataset, 1 - picture if inverted else picture, encoding)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _add_pixels(dataset: pydicom.Dataset, picture: np.ndarray, encoding: str) -> None:
    bits = BITS[encoding]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.Rows, dataset.Columns = picture.shape
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    values = np.round(picture * (2**bits - 1)).astype(np.uint8 if bits == 8 else "<u2")
    if bits == 12:
        dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    if bits == 16:
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.0625", "-1000"
        dataset.WindowCenter, dataset.WindowWidth = "1048", "4096"
    if encoding == "jpeg8":
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format="JPEG", quality=92)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.LossyImageCompression = "01"
    else:
        dataset.add_new("PixelData", "OB" if bits == 8 else "OW", values.tobytes())

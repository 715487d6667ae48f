"""Finding pictures inside pictures."""

import cv2
import numpy as np


def place(picture, part):
    """(x, y) where `part` lies in `picture`, pixel for pixel; None if it does not."""
    if any(inner > outer for inner, outer in zip(part.shape, picture.shape)):
        return None
    differences = cv2.matchTemplate(picture, np.ascontiguousarray(part), cv2.TM_SQDIFF)
    x, y = cv2.minMaxLoc(differences)[2]
    return (x, y) if np.array_equal(picture[y : y + part.shape[0], x : x + part.shape[1]], part) else None

"""What detection and classification share of Detectron2's machinery. Importing it imports Detectron2, quietly."""

from sact_det.engine._detectron2 import import_detectron2

import_detectron2()

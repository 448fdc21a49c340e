"""Pure: which swap-ins come next, in which order, and how sure that is."""

from pipellm.predict.prediction import SURE, Prediction
from pipellm.predict.predictor import Observation, Predictor

__all__ = ["SURE", "Observation", "Prediction", "Predictor"]

"""Whole programs in virtual time: the same predictor, planner and executor, a modelled machine."""

"""Saliency maps against human fixations: reading fixation data, the field's metrics, post-processing, tuning."""

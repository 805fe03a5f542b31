"""Scoring of whole files of histories, in parts."""

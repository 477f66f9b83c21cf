"""Tests of the LocateAnything backend."""

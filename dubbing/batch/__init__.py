"""Thousands of dubs: jobs as data, worker processes or Ray, a journal, resume.

from dubbing.batch.jobs import read_jobs
from dubbing.batch.options import BatchOptions
from dubbing.batch.runner import run_batch

summary = run_batch(read_jobs("jobs.jsonl"), "out/", BatchOptions(workers=2))
"""
